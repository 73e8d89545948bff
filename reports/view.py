"""View model of a whole report: every decision about what is shown and how it reads. Templates only place it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

from conformance.metrics import REGISTRY
from conformance.results import GATES, CaseResult, Results
from conformance.verdicts import Verdict
from reports.labels import (
    EXIT_CODES,
    HEADLINE,
    PASSED,
    PER_STEP,
    VERDICTS,
    limit_text,
    metric_label,
    metric_unit,
    ordered,
    worst_latent,
)
from reports.text import duration, flatten, number, one_line
from reports.thumbs import PAGE_BYTES, Budget
from reports.view_card import Card, anchor, card_view
from reports.view_findings import gap_view
from reports.view_layouts import Layouts, layouts_view
from reports.view_power import PowerTable, power_table
from reports.view_tables import metric_row

_COLUMNS = 4  # metric columns of the summary table
_WEIGHT_PASSED, _WEIGHT_OTHER = 1, 4  # shares of the thumbnail budget


@dataclass(frozen=True)
class Chip:
    """A verdict and how many cases have it."""

    verdict: str
    label: str
    tone: str
    count: int


@dataclass(frozen=True)
class Axis:
    """A filter: an axis of the matrix with more than one value."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Cell:
    """A worst value, its limit, and the tone: good, bad or none. ``sort`` is the number to sort by, empty for none."""

    text: str
    limit: str
    tone: str
    sort: str = ""


@dataclass(frozen=True)
class GateCell:
    """One gate's verdict on a case, linked to its card."""

    label: str
    tone: str
    anchor: str


@dataclass(frozen=True)
class Column:
    """A metric of the summary table. ``worse`` is ``high`` or ``low``: which end sorting shows first."""

    key: str
    label: str
    unit: str
    worse: str


@dataclass(frozen=True)
class Row:
    """A case in the summary table. Numbers are those of its ``lead``, the gate with the worst verdict.

    ``gates`` are in the order of the page's gates, None for one that the case did not go through. ``anchors`` are the
    cards of the case, with spaces between them.
    """

    lead: str
    anchors: str
    id: str
    gates: tuple[GateCell | None, ...]
    cells: tuple[Cell, ...]
    latents: Cell
    gap: Cell
    seconds: Cell


@dataclass(frozen=True)
class Page:
    """The whole report. ``commands`` are those of several runs; one alone is among the facts.

    ``source`` is JSON that names the run in a patch; ``pictures`` is how many bytes of the page are pictures.
    """

    title: str
    headline: str
    tone: str
    facts: tuple[tuple[str, str], ...]
    commands: tuple[str, ...]
    chips: tuple[Chip, ...]
    axes: tuple[Axis, ...]
    gates: tuple[str, ...]
    columns: tuple[Column, ...]
    gaps: bool
    rows: tuple[Row, ...]
    layouts: Layouts | None
    power: PowerTable | None
    cards: tuple[Card, ...]
    environment: dict[str, str]
    source: str
    pictures: int


def headline(results: Results) -> str:
    """``5 of 12 cases passed, 2 failed, 5 could not be judged.``"""
    verdicts = [case.verdict for case in results.cases]
    passed = sum(verdict in PASSED for verdict in verdicts)
    parts = [f"{passed} of {len(verdicts)} {'case' if len(verdicts) == 1 else 'cases'} passed"]
    for words, tone in (
        ("failed", "bad"),
        ("broke off", "broken"),
        ("could not be judged", "open"),
        ("waived", "waived"),
    ):
        count = sum(VERDICTS[verdict].tone == tone for verdict in verdicts)
        parts += [f"{count} {words}"] if count else []
    return ", ".join(parts) + "."


def chips(results: Results) -> tuple[Chip, ...]:
    """The verdicts that occur, worst first, with their counts."""
    counts = results.counts
    return tuple(
        Chip(str(verdict), label.short, label.tone, counts[verdict])
        for verdict, label in VERDICTS.items()
        if verdict in counts
    )


def _facts(results: Results) -> tuple[tuple[str, str], ...]:
    run, code = results.run, results.exit_code
    seconds = run.get("seconds")
    shards = _list(run.get("shards")) or ([run["shard"]] if run.get("shard") else [])
    facts = [("Exit code", f"{code}: {EXIT_CODES[code]}")]
    if run.get("started"):
        facts.append(("Started", one_line(run["started"])))
    if isinstance(seconds, int | float):
        facts.append(("Took", duration(float(seconds)) + (" over all shards" if len(shards) > 1 else "")))
    if shards:
        facts.append(("Shards" if len(shards) > 1 else "Shard", ", ".join(one_line(shard) for shard in shards)))
    if run.get("rejudged"):
        facts.append(("Judged again", f"by thresholds {one_line(run['rejudged'])[:12]}"))
    commands = _commands(results)
    return (*facts, *([("Command", commands[0])] if len(commands) == 1 else []))


def _commands(results: Results) -> tuple[str, ...]:
    commands = _list(results.run.get("commands")) or [results.run.get("command")]
    return tuple(one_line(command) for command in commands if command)


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _columns(cases: list[CaseResult]) -> list[str]:
    """Metrics of the summary table beside the latents' own column: the headline ones, then those with a limit, as
    far as there is room. One that no case has a value or a limit of has no column."""
    used = [
        (name, metric.limit is not None)
        for case in cases
        for name, metric in case.metrics.items()
        if metric.worst is not None or metric.limit is not None
    ]
    limited = dict(sorted(used, key=lambda pair: pair[1]))
    by_use = sorted(limited, key=lambda name: not limited[name])
    return [name for name in dict.fromkeys([*HEADLINE, *by_use]) if name in limited and name != PER_STEP][:_COLUMNS]


def _column(name: str) -> Column:
    worse = "low" if name in REGISTRY and REGISTRY[name].better == "higher" else "high"
    return Column(one_line(name), metric_label(name), metric_unit(name), worse)


def _sort(value: float | None) -> str:
    """NaN is the worst of either end."""
    return "" if value is None else "nan" if math.isnan(value) else repr(float(value))


def _cell(case: CaseResult, name: str) -> Cell:
    if name not in case.metrics:
        return Cell("–", "", "none")
    metric = case.metrics[name]
    row = metric_row(name, metric)
    if metric.worst is None:
        return Cell(row.judged, "", row.tone)
    return Cell(row.worst, limit_text(name, metric.limit), row.tone, _sort(metric.worst))


def _latents_cell(case: CaseResult) -> Cell:
    """Relative L2 of the worst stream against its limit; a case whose metrics lack it has the bare distance."""
    distance = worst_latent(case)
    bare = Cell(number(distance), "", "none", _sort(distance))
    cell = _cell(case, PER_STEP) if PER_STEP in case.metrics else bare
    exact = bool(case.latents) and all(latent.hash_equal for latent in case.latents.values())
    return replace(cell, text="bit-equal") if exact else cell


def _gap_cell(case: CaseResult) -> Cell:
    gap = gap_view(case)
    return Cell("", "", "none") if gap is None else Cell(gap.short, "", gap.tone)


def _row(results: list[CaseResult], gates: tuple[str, ...], columns: list[str]) -> Row:
    lead, by_gate = results[0], {case.gate: case for case in results}
    took = sum(sum(case.seconds.values()) for case in results) if any(case.seconds for case in results) else None
    return Row(
        lead=anchor(lead),
        anchors=" ".join(anchor(case) for case in results),
        id=one_line(lead.id),
        gates=tuple(_gate_cell(by_gate[gate]) if gate in by_gate else None for gate in gates),
        cells=tuple(_cell(lead, name) for name in columns),
        latents=_latents_cell(lead),
        gap=_gap_cell(next((case for case in results if case.gap), lead)),
        seconds=Cell(duration(took), "", "none", _sort(took)),
    )


def _gate_cell(case: CaseResult) -> GateCell:
    label = VERDICTS[case.verdict]
    return GateCell(label.short, label.tone, anchor(case))


def _rows(cases: list[CaseResult], gates: tuple[str, ...], columns: list[str]) -> tuple[Row, ...]:
    """One row a case, the worst of its gates deciding where it stands."""
    by_id: dict[str, list[CaseResult]] = {}
    for case in cases:
        by_id.setdefault(case.id, []).append(case)
    return tuple(_row(results, gates, columns) for results in by_id.values())


def _axes(cases: list[CaseResult]) -> tuple[Axis, ...]:
    seen: dict[str, dict[str, None]] = {}
    for case in cases:
        for name, value in {"gate": case.gate, **case.axes}.items():
            seen.setdefault(one_line(name), {})[one_line(value)] = None
    return tuple(Axis(name, tuple(sorted(values))) for name, values in seen.items() if len(values) > 1)


def page(results: Results, root: Path, pictures: int = PAGE_BYTES) -> Page:
    """The report of ``results``; pictures and files are looked up under ``root``.

    pictures: bytes that embedded pictures may take, as they stand in the page.
    """
    cases = ordered(results.cases)
    columns = _columns(cases)
    weights = [_WEIGHT_PASSED if case.verdict in PASSED else _WEIGHT_OTHER for case in cases]
    budget = Budget(pictures, weights)
    cards = []
    for case in cases:
        budget.next_case()
        cards.append(card_view(root, case, budget))
    gates = tuple(gate for gate in GATES if any(case.gate == gate for case in cases))
    return Page(
        title="Conformance report",
        headline=headline(results),
        tone=VERDICTS[cases[0].verdict].tone if cases else VERDICTS[Verdict.NO_REFERENCE].tone,
        facts=_facts(results),
        commands=commands if len(commands := _commands(results)) > 1 else (),
        chips=chips(results),
        axes=_axes(cases),
        gates=gates,
        columns=tuple(_column(name) for name in columns),
        gaps=any(case.gap for case in cases),
        rows=_rows(cases, gates, columns),
        layouts=layouts_view(cases),
        power=power_table(cases),
        cards=tuple(cards),
        environment=flatten(results.run.get("ledger") or {}),
        source=json.dumps({"started": results.run.get("started"), "command": results.run.get("command")}),
        pictures=budget.used,
    )
