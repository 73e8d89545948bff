"""View models of detection power: which defects the limits of a case catch, as the thresholds' evidence says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from conformance.results import CaseResult
from reports.text import one_line

STATES = {"caught": "●", "missed": "○", "waived": "w"}


@dataclass(frozen=True)
class Waiver:
    defect: str
    words: str


@dataclass(frozen=True)
class Power:
    """Of one case. ``share`` is ``16 of 17``, without waived defects; ``by`` is (defect, metrics that caught it)."""

    share: str
    full: bool
    caught: tuple[str, ...]
    missed: tuple[str, ...]
    waived: tuple[Waiver, ...]
    by: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class PowerRow:
    """``marks`` are (state, sign) in the order of the columns; both empty where a defect cannot exist in the case."""

    name: str
    share: str
    full: bool
    marks: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class PowerTable:
    """``columns`` are (defect, how many cases miss it), most missed first."""

    summary: str
    columns: tuple[tuple[str, int], ...]
    rows: tuple[PowerRow, ...]


def _states(case: CaseResult) -> dict[str, str]:
    """Defect -> caught, missed or waived. A waiver counts before the rest."""
    power = case.evidence.get("power")
    found: dict[str, str] = {}
    for state in STATES:
        items = power.get(state) if isinstance(power, dict) else None
        for item in items if isinstance(items, list) else []:
            name = item.get("defect") if isinstance(item, dict) else item
            found[one_line(name)] = state
    return found


def _of(states: dict[str, str], state: str) -> tuple[str, ...]:
    return tuple(name for name, found in states.items() if found == state)


def power_view(case: CaseResult) -> Power | None:
    """The case's power, or None when its evidence has none."""
    states = _states(case)
    if not states:
        return None
    caught, missed = _of(states, "caught"), _of(states, "missed")
    power: dict[str, Any] = case.evidence["power"]
    by = power.get("by")
    return Power(
        share=f"{len(caught)} of {len(caught) + len(missed)}",
        full=not missed,
        caught=caught,
        missed=missed,
        waived=tuple(_waiver(item) for item in power.get("waived") or []),
        by=tuple((one_line(name), _names(metrics)) for name, metrics in by.items()) if isinstance(by, dict) else (),
    )


def _waiver(item: Any) -> Waiver:
    if not isinstance(item, dict):
        return Waiver(one_line(item), "")
    words = [one_line(item.get("reason", "")), f"owner {one_line(item.get('owner', '?'))}"]
    return Waiver(one_line(item.get("defect", "")), ", ".join([*words, f"until {one_line(item.get('expires', '?'))}"]))


def _names(metrics: Any) -> str:
    return ", ".join(one_line(name) for name in metrics) if isinstance(metrics, list) else one_line(metrics)


def power_table(cases: Sequence[CaseResult]) -> PowerTable | None:
    """Case x defect over the cases whose evidence has power, weakest case first; None when there are none."""
    found = {case.id: states for case in cases if (states := _states(case))}
    if not found:
        return None
    missed: dict[str, int] = {}
    for states in found.values():
        for name, state in states.items():
            missed[name] = missed.get(name, 0) + (state == "missed")
    columns = sorted(missed, key=lambda name: (-missed[name], name))
    rows = [(_row(case, states, columns), len(_of(states, "missed"))) for case, states in found.items()]
    caught = sum(len(_of(states, "caught")) for states in found.values())
    judged = caught + sum(missed.values())
    return PowerTable(
        summary=f"{caught} of {judged} defects caught over {len(found)} cases, {sum(missed.values())} missed",
        columns=tuple((name, missed[name]) for name in columns),
        rows=tuple(row for row, _ in sorted(rows, key=lambda pair: -pair[1])),
    )


def _row(case: str, states: dict[str, str], columns: Sequence[str]) -> PowerRow:
    caught, missed = len(_of(states, "caught")), len(_of(states, "missed"))
    marks = tuple((state, STATES[state]) if (state := states.get(name, "")) else ("", "") for name in columns)
    return PowerRow(one_line(case), f"{caught} of {caught + missed}", not missed, marks)
