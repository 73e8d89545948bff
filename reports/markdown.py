"""Summary of a run as GitHub-flavoured Markdown, for a CI job's page."""

from __future__ import annotations

import html

from conformance.results import GATES, CaseResult, Results
from reports.labels import EXIT_CODES, PASSED, VERDICTS, brief_reason, key_metric, limit_text, metric_label, ordered
from reports.text import duration, number, one_line
from reports.view import chips, headline

_MOST_ROWS = 100  # of each table; a job summary holds 1 MB
_LONGEST = 240
_MARKS = {"good": "✅", "exact": "✅", "bad": "❌", "broken": "💥", "open": "❔", "waived": "⚪"}
# Numeric references are text to a Markdown parser, whatever character they stand for.
_SPECIAL = str.maketrans({char: f"&#{ord(char)};" for char in "|`*_[]\\~$#!"})


def summary_md(results: Results) -> str:
    """Counts, then every case that did not pass with its reason, then the passes folded away."""
    cases = ordered(results.cases)
    rest = [case for case in cases if case.verdict not in PASSED]
    passed = [case for case in cases if case.verdict in PASSED]
    counts = " · ".join(f"{_MARKS[chip.tone]} {chip.count} {chip.label}" for chip in chips(results))
    lines = [
        "## Conformance",
        "",
        f"**{headline(results)}** Exit code {results.exit_code}: {EXIT_CODES[results.exit_code]}.",
    ]
    lines += ["", counts] if counts else []
    lines += _gates(cases)
    if rest:
        lines += ["", "| | Case | Gate | Verdict | Reason | Took |", "|---|---|---|---|---|---:|"]
        lines += [_row(case, brief_reason(case)) for case in rest[:_MOST_ROWS]]
        lines += _left_out(len(rest))
    if passed:
        lines += ["", f"<details><summary>{len(passed)} passed</summary>", ""]
        lines += ["| | Case | Gate | Verdict | Worst | Took |", "|---|---|---|---|---|---:|"]
        lines += [_row(case, _worst(case)) for case in passed[:_MOST_ROWS]]
        lines += [*_left_out(len(passed)), "", "</details>"]
    return "\n".join(lines) + "\n"


def _gates(cases: list[CaseResult]) -> list[str]:
    """Counts of the verdicts, a column a gate, where there are several gates."""
    gates = [gate for gate in GATES if any(case.gate == gate for case in cases)]
    if len(gates) < 2:
        return []
    lines = ["", f"| Verdict | {' | '.join(gates)} |", f"|---|{'---:|' * len(gates)}"]
    for verdict, label in VERDICTS.items():
        counts = [sum((case.gate, case.verdict) == (gate, verdict) for case in cases) for gate in gates]
        if any(counts):
            lines.append(f"| {label.short} | {' | '.join(str(count or '') for count in counts)} |")
    return lines


def _row(case: CaseResult, text: str) -> str:
    label = VERDICTS[case.verdict]
    took = duration(sum(case.seconds.values()) if case.seconds else None)
    return f"| {_MARKS[label.tone]} | {_cell(case.id)} | {case.gate} | {label.short} | {_cell(text)} | {took} |"


def _worst(case: CaseResult) -> str:
    name = key_metric(case)
    if name is None:
        return ""
    metric = case.metrics[name]
    limit = f" ({limit_text(name, metric.limit)})" if metric.limit is not None else ""
    return f"{metric_label(name)} {number(metric.worst)}{limit}"


def _cell(text: str) -> str:
    """Text that is neither HTML nor Markdown, on one line."""
    return html.escape(one_line(text, _LONGEST), quote=False).translate(_SPECIAL)


def _left_out(count: int) -> list[str]:
    return ["", f"{count - _MOST_ROWS} more are in the report."] if count > _MOST_ROWS else []
