"""View model of a whole report: every decision about what is shown and how it reads. Templates only place it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from conformance.results import CaseResult, Results
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
from reports.text import duration, flatten, number, one_line, plain
from reports.thumbs import PAGE_BYTES, Budget
from reports.view_card import Card, anchor, card_view
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
    """A worst value, its limit, and the tone: good, bad or none."""

    text: str
    limit: str
    tone: str


@dataclass(frozen=True)
class Row:
    """A line of the summary table. ``axes`` is a JSON object and ``search`` lower-case text, for the filters."""

    anchor: str
    id: str
    gate: str
    verdict: str
    label: str
    tone: str
    cells: tuple[Cell, ...]
    latents: Cell
    seconds: str
    axes: str
    search: str


@dataclass(frozen=True)
class Page:
    """The whole report. ``columns`` are the (label, unit) of the summary table's metrics."""

    title: str
    headline: str
    tone: str
    facts: tuple[tuple[str, str], ...]
    chips: tuple[Chip, ...]
    axes: tuple[Axis, ...]
    columns: tuple[tuple[str, str], ...]
    rows: tuple[Row, ...]
    cards: tuple[Card, ...]
    environment: dict[str, str]


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
    commands = _list(run.get("commands")) or [run.get("command")]
    facts = [("Exit code", f"{code}: {EXIT_CODES[code]}")]
    if run.get("started"):
        facts.append(("Started", one_line(run["started"])))
    if isinstance(seconds, int | float):
        facts.append(("Took", duration(float(seconds)) + (" over all shards" if len(shards) > 1 else "")))
    if shards:
        facts.append(("Shards" if len(shards) > 1 else "Shard", ", ".join(one_line(shard) for shard in shards)))
    if run.get("rejudged"):
        facts.append(("Judged again", f"by thresholds {one_line(run['rejudged'])[:12]}"))
    return (*facts, *(("Command", one_line(command)) for command in commands if command))


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _columns(cases: list[CaseResult]) -> list[str]:
    """Metrics of the summary table beside the latents' own column: the headline ones, then those with a limit, as
    far as there is room."""
    limited = {name: metric.limit is not None for case in cases for name, metric in case.metrics.items()}
    by_use = sorted(limited, key=lambda name: not limited[name])
    return [name for name in dict.fromkeys([*HEADLINE, *by_use]) if name in limited and name != PER_STEP][:_COLUMNS]


def _cell(case: CaseResult, name: str) -> Cell:
    if name not in case.metrics:
        return Cell("–", "", "none")
    row = metric_row(name, case.metrics[name])
    if case.metrics[name].worst is None:
        return Cell(row.judged, "", row.tone)
    return Cell(row.worst, limit_text(name, case.metrics[name].limit), row.tone)


def _latents_cell(case: CaseResult) -> Cell:
    """Relative L2 of the worst stream against its limit; a case whose metrics lack it has the bare distance."""
    cell = _cell(case, PER_STEP) if PER_STEP in case.metrics else Cell(number(worst_latent(case)), "", "none")
    exact = bool(case.latents) and all(latent.hash_equal for latent in case.latents.values())
    return replace(cell, text="bit-equal") if exact else cell


def _row(case: CaseResult, columns: list[str]) -> Row:
    label = VERDICTS[case.verdict]
    prompts = plain(case.case.get("request", ""))
    return Row(
        anchor=anchor(case),
        id=one_line(case.id),
        gate=case.gate,
        verdict=str(case.verdict),
        label=label.short,
        tone=label.tone,
        cells=tuple(_cell(case, name) for name in columns),
        latents=_latents_cell(case),
        seconds=duration(sum(case.seconds.values()) if case.seconds else None),
        axes=json.dumps({"gate": case.gate, **{one_line(key): one_line(value) for key, value in case.axes.items()}}),
        search=f"{one_line(case.id)} {case.gate} {case.verdict} {one_line(case.reason)} {prompts}".lower(),
    )


def _axes(cases: list[CaseResult]) -> tuple[Axis, ...]:
    seen: dict[str, dict[str, None]] = {}
    for case in cases:
        for name, value in {"gate": case.gate, **case.axes}.items():
            seen.setdefault(one_line(name), {})[one_line(value)] = None
    return tuple(Axis(name, tuple(sorted(values))) for name, values in seen.items() if len(values) > 1)


def page(results: Results, root: Path) -> Page:
    """The report of ``results``; pictures and files are looked up under ``root``."""
    cases = ordered(results.cases)
    columns = _columns(cases)
    weights = [_WEIGHT_PASSED if case.verdict in PASSED else _WEIGHT_OTHER for case in cases]
    budget = Budget(PAGE_BYTES, weights)
    cards = []
    for case in cases:
        budget.next_case()
        cards.append(card_view(root, case, budget))
    return Page(
        title="Conformance report",
        headline=headline(results),
        tone=VERDICTS[cases[0].verdict].tone if cases else VERDICTS[Verdict.NO_REFERENCE].tone,
        facts=_facts(results),
        chips=chips(results),
        axes=_axes(cases),
        columns=tuple((metric_label(name), metric_unit(name)) for name in columns),
        rows=tuple(_row(case, columns) for case in cases),
        cards=tuple(cards),
        environment=flatten(results.run.get("ledger") or {}),
    )
