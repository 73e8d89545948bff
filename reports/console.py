"""Summary of a run for a terminal."""

from __future__ import annotations

import io
import shutil
import sys

from rich.console import Console
from rich.table import Table
from rich.text import Text

from conformance.results import CaseResult, Results
from conformance.verdicts import Verdict
from reports.labels import EXIT_CODES, VERDICTS, key_metric, limit_text, metric_label, metric_unit, ordered
from reports.text import duration, number, one_line
from reports.view import chips, headline

_STYLES = {
    "good": "green",
    "exact": "green",
    "bad": "bold red",
    "broken": "bold magenta",
    "open": "yellow",
    "waived": "dim",
}


def summary_table(results: Results) -> str:
    """A table of the cases, worst last (next to the prompt), with counts under it. Colours only on a terminal."""
    out = io.StringIO()
    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size((200, 24)).columns  # a log has room for whole ids
    console = Console(file=out, width=width, force_terminal=terminal, no_color=not terminal, highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    longest = max((len(one_line(case.id)) for case in results.cases), default=0)
    table.add_column("case", overflow="fold", min_width=min(longest, max(20, width - 72)))
    table.add_column("gate")
    table.add_column("verdict", no_wrap=True)
    table.add_column("key metric", overflow="fold")
    table.add_column("took", justify="right", no_wrap=True)
    for case in reversed(ordered(results.cases)):
        table.add_row(
            Text(one_line(case.id)),
            case.gate,
            Text(str(case.verdict), style=_STYLES[VERDICTS[case.verdict].tone]),
            Text(_key(case)),
            duration(sum(case.seconds.values()) if case.seconds else None),
        )
    console.print(table)
    counts = Text("  ").join(Text(f"{chip.count} {chip.verdict}", style=_STYLES[chip.tone]) for chip in chips(results))
    console.print(Text(f"\n{headline(results)} Exit code {results.exit_code}: {EXIT_CODES[results.exit_code]}."))
    console.print(counts)
    return "\n".join(line.rstrip() for line in out.getvalue().rstrip().splitlines())


def _key(case: CaseResult) -> str:
    if case.verdict == Verdict.PASS_EXACT:
        return "equal bit for bit"
    name = key_metric(case)
    if name is None:
        return one_line(case.reason, 80)
    metric = case.metrics[name]
    if metric.worst is None:
        return f"{metric_label(name)} not measured"
    text = f"{metric_label(name)} {number(metric.worst)} {metric_unit(name)}".rstrip()
    return text + (f" (limit {limit_text(name, metric.limit)})" if metric.limit is not None else "")
