"""What a threshold is: a limit and the evidence it rests on. Schema ``conformance.thresholds/2``, one file a cohort::

    {"schema": "conformance.thresholds/2",
     "cohort": {"device": "cpu", "name": "cpu"},
     "entries": [
       {"case": "<case id>",
        "limits": {"<metric>": {"limit": number, "noise_floor": number,
                                "smallest_defect": {"name": str, "value": number}}},
        "evidence": {"method": str,
                     "floor": [{"side": "engine" | "reference", "device": str, "repeats": number, "changes": number,
                                "modes": [{"fingerprint": str, "samples": [str]}]}],
                     "cohort": {"device", "dtype", "torch", "diffusers", ...},
                     "power": {"caught": {defect: [metric]}, "missed": [defect]},
                     "reason": str, "owner": str, "date": "YYYY-MM-DD"}}]}

Limits are inclusive. ``noise_floor`` is the worst value the metric took between runs that must agree;
``smallest_defect`` is the guarded defect whose value comes closest to it. No field has a default, and a limit is
refused unless it is strictly worse than its floor and at most half as far from a perfect match as its smallest defect
(``bounds.loosest``). A case may have no limits at all: then ``reason`` says why. Every refusal is one InputError line:
file, case, metric, field, value, what was expected.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from typing import Any

from conformance.case import DTYPES, QUANTIZATIONS
from conformance.errors import InputError, bad_field
from conformance.jsonio import jsonable
from thresholds.bounds import Bound, parse_bound
from thresholds.evidence import STRUCTURE, Evidence, parse_evidence
from thresholds.fields import fields, listed, text
from thresholds.floor import METRIC
from thresholds.waivers import Waiver, today

SCHEMA = "conformance.thresholds/2"
MIN_POWER = 0.95
_CASE = re.compile(
    rf"[a-z0-9][a-z0-9.-]*(/[a-z0-9][a-z0-9.-]*){{2}}@[a-z0-9-]+\+[a-z0-9][a-z0-9.-]*-({'|'.join(DTYPES)})"
    rf"(\+({'|'.join(QUANTIZATIONS)}))?(\+kernels)?"
)
_CASE_FORM = "<model>/<pipeline>/<variant>@<layout>+<numerics>-<dtype>[+<quantization>][+kernels]"


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """The machines a file speaks for. device: ``cpu`` or the accelerator's name."""

    device: str
    name: str


@dataclass(frozen=True, kw_only=True)
class Entry:
    """The limits of one case and their evidence. waivers: those that cover what the limits miss, whatever the day."""

    case: str
    bounds: tuple[Bound, ...]
    source: Evidence
    waivers: tuple[Waiver, ...] = ()

    @property
    def limits(self) -> dict[str, float]:
        """Metric -> inclusive limit on its worst value."""
        return {bound.metric: bound.limit for bound in self.bounds}

    def waived(self, day: date) -> tuple[Waiver, ...]:
        return tuple(waiver for waiver in self.waivers if waiver.holds(day))

    def missed(self, day: date) -> tuple[str, ...]:
        """Defects that the limits let through and no waiver covers on that day."""
        waived = {waiver.defect for waiver in self.waived(day)}
        return tuple(name for name in self.source.missed if name not in waived)

    def power(self, day: date) -> float:
        """Share of the unwaived defects that the limits catch; 0 where there are none."""
        caught, missed = len(self.source.caught), len(self.missed(day))
        return caught / (caught + missed) if caught else 0.0

    def trouble(self, day: date) -> str:
        """Why these limits cannot pass a run, in one sentence; empty when they can."""
        if self.source.reason:
            return self.source.reason
        expired = [waiver for waiver in self.waivers if waiver.defect in self.missed(day)]
        return "; ".join(
            f"the waiver of {each.defect!r} for {each.cases!r} expired after {each.expires} (owner {each.owner})"
            for each in expired
        )

    @property
    def evidence(self) -> dict[str, Any]:
        """Everything behind the limits as JSON values, with what is waived today."""
        now, own = today(), self.source.as_dict()
        own["samples"] = self.source.samples
        marks = {mark for spread in self.source.floor for mark, _ in spread.modes}
        cohorts = [{**spread.as_dict(), "samples": spread.samples} for spread in self.source.floor]
        own["floor"] = {"modes": len(marks), "cohorts": cohorts}
        own["power"] = {
            "caught": list(self.source.caught),
            "missed": list(self.missed(now)),
            "waived": [
                {name: getattr(waiver, name) for name in ("defect", "reason", "owner", "expires")}
                for waiver in self.waived(now)
            ],
            "by": {name: list(metrics) for name, metrics in self.source.by},
        }
        return jsonable({**own, "limits": {bound.metric: bound.as_dict() for bound in self.bounds}})

    def as_dict(self) -> dict[str, Any]:
        """The entry as the schema spells it."""
        limits = {bound.metric: bound.as_dict() for bound in self.bounds}
        return {"case": self.case, "limits": limits, "evidence": self.source.as_dict()}


def parse(data: Any, where: str) -> tuple[Cohort, tuple[Entry, ...]]:
    """Cohort and entries of one file's JSON value. InputError on anything that the schema does not allow."""
    found = data.get("schema") if isinstance(data, dict) else data
    if found != SCHEMA:
        raise bad_field(where, "schema", found, repr(SCHEMA))
    top = fields(data, ("schema", "cohort", "entries"), where)
    cohort = fields(top["cohort"], ("device", "name"), f"{where}: cohort")
    parsed = Cohort(**{name: text(cohort[name], f"{where}: cohort", name) for name in cohort})
    items = listed(top["entries"], where, "entries")
    entries = tuple(_entry(item, parsed, f"{where}: entries[{i}]", where) for i, item in enumerate(items))
    seen: set[str] = set()
    for entry in entries:
        if entry.case in seen:
            raise InputError(f"{where}: case {entry.case!r} has more than one entry; expected one")
        seen.add(entry.case)
    return parsed, entries


def _entry(data: Any, cohort: Cohort, place: str, file: str) -> Entry:
    item = fields(data, ("case", "limits", "evidence"), place)
    case = text(item["case"], place, "case")
    match = _CASE.fullmatch(case)
    if not match:
        raise bad_field(place, "case", case, _CASE_FORM)
    where = f"{file}: case {case!r}"
    source = parse_evidence(item["evidence"], f"{where}, evidence")
    measured = dict(source.cohort)
    for name, expected in (("device", cohort.device), ("dtype", match[2])):
        if measured[name] != expected:
            raise bad_field(f"{where}, evidence.cohort", name, measured[name], f"{expected!r}, as file and case say")
    if not isinstance(item["limits"], dict):
        raise bad_field(where, "limits", item["limits"], "an object")
    if bool(item["limits"]) == bool(source.reason.strip()):
        raise bad_field(where, "limits", item["limits"], "at least one metric, or a reason in the evidence why none")
    bounds = tuple(
        parse_bound(metric, value, f"{where}, metric {metric!r}") for metric, value in item["limits"].items()
    )
    _check(bounds, source, where)
    return Entry(case=case, bounds=bounds, source=source)


def _check(bounds: tuple[Bound, ...], source: Evidence, where: str) -> None:
    """The limits and what the evidence says of them must agree."""
    by = dict(source.by)
    for bound in bounds:
        if bound.metric not in by.get(bound.defect, ()):
            expected = f"one of the defects that evidence.power.caught says {bound.metric!r} catches"
            raise bad_field(f"{where}, metric {bound.metric!r}", "smallest_defect.name", bound.defect, expected)
        worst = max(spread.changes for spread in source.floor)
        if bound.metric == METRIC and bound.noise_floor < worst:
            expected = f"at least {worst!r}, the worst change in evidence.floor"
            raise bad_field(f"{where}, metric {bound.metric!r}", "noise_floor", bound.noise_floor, expected)
    known = {STRUCTURE, *(bound.metric for bound in bounds)}
    for defect, metrics in source.by:
        for metric in metrics:
            if metric not in known:
                raise bad_field(f"{where}, evidence.power.caught", defect, metric, f"one of {sorted(known)}")
