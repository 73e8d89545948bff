"""Detection power: defect x case from the evidence that the limits carry. Pure.

Power is the share of unwaived defects that a case's limits catch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from conformance.errors import InputError
from thresholds.evidence import STRUCTURE
from thresholds.loader import Thresholds
from thresholds.schema import MIN_POWER, Entry

CAUGHT, MISSED, WAIVED, ABSENT = "+", "M", "w", " "


@dataclass(frozen=True, kw_only=True)
class Power:
    """Of one case. by: caught defects and the metrics that catch them. trouble: why no run may pass by its limits."""

    case: str
    power: float
    by: dict[str, tuple[str, ...]]
    missed: tuple[str, ...]
    waived: tuple[str, ...]
    trouble: str

    @property
    def enough(self) -> bool:
        return self.power >= MIN_POWER and not self.trouble

    def mark(self, defect: str) -> str:
        if defect in self.by:
            return CAUGHT
        return MISSED if defect in self.missed else WAIVED if defect in self.waived else ABSENT

    def as_dict(self) -> dict[str, Any]:
        return {
            "id": self.case,
            "power": self.power,
            "caught": list(self.by),
            "missed": list(self.missed),
            "waived": list(self.waived),
            "by": {name: list(metrics) for name, metrics in self.by.items()},
            "trouble": self.trouble,
        }


def of(entry: Entry, today: date) -> Power:
    return Power(
        case=entry.case,
        power=entry.power(today),
        by=dict(entry.source.by),
        missed=entry.missed(today),
        waived=tuple(dict.fromkeys(waiver.defect for waiver in entry.waived(today))),
        trouble=entry.trouble(today),
    )


def remeasured(entry: Entry, found: Mapping[str, tuple[str, ...]], today: date) -> tuple[Power, tuple[str, ...]]:
    """The power that a new measurement shows, and what the evidence says is caught and now is not."""
    waived = {waiver.defect for waiver in entry.waivers if waiver.holds(today)}
    by = {name: metrics for name, metrics in found.items() if metrics}
    missed = tuple(name for name in found if name not in by and name not in waived)
    now = Power(
        case=entry.case,
        power=len(by) / (len(by) + len(missed)) if by else 0.0,
        by=by,
        missed=missed,
        waived=tuple(name for name in found if name not in by and name in waived),
        trouble=entry.trouble(today),
    )
    return now, tuple(name for name in entry.source.caught if name not in by)


def defects(powers: Sequence[Power]) -> tuple[str, ...]:
    """Every defect that was measured anywhere, in the order of the battery."""
    every = (name for power in powers for name in (*power.by, *power.missed, *power.waived))
    order = _order()
    return tuple(sorted(dict.fromkeys(every), key=lambda name: (order.get(name, len(order)), name)))


def _order() -> dict[str, int]:
    from conformance.defects.registry import DEFECTS
    from conformance.defects.samples import SAMPLE_DEFECTS

    return {name: i for i, name in enumerate((*SAMPLE_DEFECTS, *DEFECTS))}


def catching(powers: Sequence[Power], defect: str, most: int = 3) -> str:
    """The metrics that catch a defect in most cases, and in how many; those without a limit first."""
    counts = Counter(metric for power in powers for metric in power.by.get(defect, ()))
    if not counts:
        return ""
    first = [STRUCTURE] if STRUCTURE in counts else []
    ranked = first + [metric for metric, _ in counts.most_common() if metric != STRUCTURE]
    return ", ".join(f"{metric} {counts[metric]}" for metric in ranked[:most])


def details(power: Power) -> Iterator[str]:
    """One case, a line a defect."""
    yield f"{power.case}  power {power.power:.3f}"
    if power.trouble:
        yield f"  NOT JUDGED: {power.trouble}"
    for name in defects([power]):
        word = {CAUGHT: "caught", MISSED: "MISSED", WAIVED: "waived"}[power.mark(name)]
        yield f"  {word}  {name:<26} {', '.join(power.by.get(name, ()))}".rstrip()


def grid(powers: Sequence[Power]) -> Iterator[str]:
    """Defects by cases, a character each, with numbered cases above and the metrics that catch at the end."""
    for number, power in enumerate(powers, 1):
        missed = f"  missed: {', '.join(power.missed)}" if power.missed else ""
        trouble = f"  NOT JUDGED: {power.trouble}" if power.trouble else ""
        yield f"{number:>4}  {power.power:.3f}  {power.case}{missed}{trouble}"
    yield ""
    width = max((len(name) for name in defects(powers)), default=0)
    for digits in (
        "".join(str(n // 10 % 10) if n % 10 == 0 else " " for n in range(1, len(powers) + 1)),
        _units(powers),
    ):
        yield f"{'':{width}}  {digits}"
    for name in defects(powers):
        yield f"{name:{width}}  {''.join(power.mark(name) for power in powers)}  {catching(powers, name)}".rstrip()
    yield f"{CAUGHT} caught, {MISSED} missed, {WAIVED} waived, blank: cannot show in that case"


def _units(powers: Sequence[Power]) -> str:
    return "".join(str(n % 10) for n in range(1, len(powers) + 1))


def problems(powers: Sequence[Power], known: Thresholds, today: date) -> Iterator[str]:
    """Why the table is red: too little power, cases that cannot be judged, waivers that ran out or cover nothing."""
    for power in powers:
        if power.trouble:
            yield f"{power.case}: {power.trouble}"
        elif not power.enough:
            missed = ", ".join(power.missed)
            yield f"{power.case}: power {power.power:.3f} is below {MIN_POWER} (missed: {missed})"
    for waiver in known.waivers:
        if not waiver.holds(today):
            yield f"waiver of {waiver.defect!r} for {waiver.cases!r}: expired after {waiver.expires}"
    for waiver in known.unused:
        yield f"waiver of {waiver.defect!r} for {waiver.cases!r}: covers nothing that is missed"


def chosen(known: Thresholds, cases: Sequence[str]) -> list[Entry]:
    """The entries of these cases, in their order. InputError when there are none."""
    found = [entry for case in cases if (entry := known.for_case(case)) is not None]
    if not found:
        raise InputError(f"no limits for {cases[0]!r}; calibrate it first" if cases else "no cases were chosen")
    return found
