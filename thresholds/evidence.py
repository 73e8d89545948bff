"""What the limits of one case rest on: the noise floor's samples, the defects caught and missed, owner and date."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from conformance.errors import InputError, bad_field
from thresholds.fields import day, fields, names, text
from thresholds.floor import Spread, parse_floor

STRUCTURE = "structure"  # caught without a limit: other shapes, a value that is not finite, a constant frame
_COHORT = ("device", "dtype", "torch", "diffusers")


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Where the limits of one case come from.

    method: how noise was provoked and the limit chosen. floor: samples behind each floor, by cohort. cohort: what they
    ran on (at least ``device``, ``dtype``, ``torch``, ``diffusers``). by: defects of the battery that the limits catch,
    each with the metrics that do, or ``STRUCTURE``. missed: those they let through. reason: why there is no limit,
    empty where there is one. date: of the measurement, ``YYYY-MM-DD``.
    """

    method: str
    floor: tuple[Spread, ...]
    cohort: tuple[tuple[str, str], ...]
    by: tuple[tuple[str, tuple[str, ...]], ...]
    missed: tuple[str, ...]
    reason: str
    owner: str
    date: str

    @property
    def caught(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.by)

    @property
    def samples(self) -> int:
        return sum(spread.samples for spread in self.floor)

    def as_dict(self) -> dict[str, Any]:
        return {
            "method": self.method,
            "floor": [spread.as_dict() for spread in self.floor],
            "cohort": dict(self.cohort),
            "power": {"caught": {name: list(metrics) for name, metrics in self.by}, "missed": list(self.missed)},
            "reason": self.reason,
            "owner": self.owner,
            "date": self.date,
        }


def parse_evidence(data: Any, where: str) -> Evidence:
    """The inverse of ``Evidence.as_dict``. InputError on anything else."""
    item = fields(data, ("method", "floor", "cohort", "power", "reason", "owner", "date"), where)
    if not isinstance(item["cohort"], dict):
        raise bad_field(where, "cohort", item["cohort"], "an object")
    for name in _COHORT:
        if name not in item["cohort"]:
            raise InputError(f"{where}.cohort: missing field {name!r}; expected at least {list(_COHORT)}")
    power = fields(item["power"], ("caught", "missed"), f"{where}.power")
    if not isinstance(power["caught"], dict):
        raise bad_field(f"{where}.power", "caught", power["caught"], "an object: metrics by defect")
    by = []
    for name, value in power["caught"].items():
        metrics = names(value, f"{where}.power.caught", text(name, f"{where}.power", "caught"))
        if not metrics:
            raise bad_field(f"{where}.power.caught", name, value, "the metrics that catch it")
        by.append((name, metrics))
    missed = names(power["missed"], f"{where}.power", "missed")
    if both := [name for name, _ in by if name in missed]:
        raise bad_field(f"{where}.power", "missed", both, "no defect that is also in 'caught'")
    if not isinstance(item["reason"], str) or not item["reason"].isprintable():
        raise bad_field(where, "reason", item["reason"], "one line of text, empty where there are limits")
    return Evidence(
        method=text(item["method"], where, "method"),
        floor=parse_floor(item["floor"], f"{where}.floor"),
        cohort=tuple(
            (text(name, f"{where}.cohort", "field name"), text(value, f"{where}.cohort", name))
            for name, value in item["cohort"].items()
        ),
        by=tuple(by),
        missed=missed,
        reason=item["reason"],
        owner=text(item["owner"], where, "owner"),
        date=day(item["date"], where, "date"),
    )
