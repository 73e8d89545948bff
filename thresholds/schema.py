"""What a threshold is: a limit and the evidence it rests on. Schema ``conformance.thresholds/1``, one file a cohort::

    {"schema": "conformance.thresholds/1",
     "cohort": {"device": "cpu", "name": "cpu"},
     "entries": [
       {"case": "<case id>",
        "limits": {"<metric>": {"limit": number, "noise_floor": number,
                                "smallest_defect": {"name": str, "value": number}}},
        "evidence": {"method": str, "samples": int, "cohort": {"device", "dtype", "torch", "diffusers", ...},
                     "power": {"caught": [defect], "missed": [defect]}, "owner": str, "date": "YYYY-MM-DD"}}]}

Limits are inclusive. ``noise_floor`` is the worst value the metric took between runs that must agree;
``smallest_defect`` is the guarded defect whose value comes closest to it. No field has a default, and a limit is
refused unless it is strictly worse than its floor and at most half as far from a perfect match as its smallest defect
(``bounds.loosest``). Every refusal is one InputError line: file, case, metric, field, value, what was expected.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from typing import Any

from conformance.case import DTYPES, QUANTIZATIONS
from conformance.errors import InputError, bad_field
from conformance.jsonio import jsonable
from thresholds.bounds import Bound, finite

SCHEMA = "conformance.thresholds/1"
MIN_SAMPLES = 3
_CASE = re.compile(
    rf"[a-z0-9][a-z0-9.-]*(/[a-z0-9][a-z0-9.-]*){{2}}@[a-z0-9-]+\+[a-z0-9][a-z0-9.-]*-({'|'.join(DTYPES)})"
    rf"(\+({'|'.join(QUANTIZATIONS)}))?(\+kernels)?"
)
_CASE_FORM = "<model>/<pipeline>/<variant>@<layout>+<numerics>-<dtype>[+<quantization>][+kernels]"
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_COHORT = ("device", "dtype", "torch", "diffusers")


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """The machines a file speaks for. device: ``cpu`` or the accelerator's name."""

    device: str
    name: str


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Where the limits of one case come from.

    method: how the noise was provoked. samples: runs behind each floor, at least ``MIN_SAMPLES``. cohort: what they
    ran on (at least ``device``, ``dtype``, ``torch``, ``diffusers``). caught, missed: defects of the battery that the
    limits together catch and let through. date: of the measurement, ``YYYY-MM-DD``.
    """

    method: str
    samples: int
    cohort: tuple[tuple[str, str], ...]
    caught: tuple[str, ...]
    missed: tuple[str, ...]
    owner: str
    date: str

    def as_dict(self) -> dict[str, Any]:
        return {
            "method": self.method,
            "samples": self.samples,
            "cohort": dict(self.cohort),
            "power": {"caught": list(self.caught), "missed": list(self.missed)},
            "owner": self.owner,
            "date": self.date,
        }


@dataclass(frozen=True, kw_only=True)
class Entry:
    """The limits of one case and their evidence."""

    case: str
    bounds: tuple[Bound, ...]
    source: Evidence

    @property
    def limits(self) -> dict[str, float]:
        """Metric -> inclusive limit on its worst value."""
        return {bound.metric: bound.limit for bound in self.bounds}

    @property
    def evidence(self) -> dict[str, Any]:
        """Everything behind the limits as JSON values: ``Evidence`` and, under ``limits``, floor and defect of each."""
        return jsonable({**self.source.as_dict(), "limits": {bound.metric: bound.as_dict() for bound in self.bounds}})

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
    if not isinstance(top["entries"], list):
        raise bad_field(where, "entries", top["entries"], "a list")
    entries = tuple(_entry(item, parsed, f"{where}: entries[{i}]", where) for i, item in enumerate(top["entries"]))
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
    source = _evidence(item["evidence"], f"{where}, evidence")
    measured = dict(source.cohort)
    for name, expected in (("device", cohort.device), ("dtype", match[2])):
        if measured[name] != expected:
            raise bad_field(f"{where}, evidence.cohort", name, measured[name], f"{expected!r}, as file and case say")
    if not isinstance(item["limits"], dict) or not item["limits"]:
        raise bad_field(where, "limits", item["limits"], "an object with at least one metric")
    bounds = tuple(_bound(metric, value, f"{where}, metric {metric!r}") for metric, value in item["limits"].items())
    for bound in bounds:
        if bound.defect not in source.caught:
            expected = f"one of the defects in evidence.power.caught, {list(source.caught)}"
            raise bad_field(f"{where}, metric {bound.metric!r}", "smallest_defect.name", bound.defect, expected)
    return Entry(case=case, bounds=bounds, source=source)


def _bound(metric: str, data: Any, where: str) -> Bound:
    item = fields(data, ("limit", "noise_floor", "smallest_defect"), where)
    defect = fields(item["smallest_defect"], ("name", "value"), f"{where}, smallest_defect")
    bound = Bound(
        metric=metric,
        limit=finite(item["limit"], where, "limit"),
        noise_floor=finite(item["noise_floor"], where, "noise_floor", infinite=True),
        defect=text(defect["name"], f"{where}, smallest_defect", "name"),
        defect_value=finite(defect["value"], f"{where}, smallest_defect", "value"),
    )
    bound.check(where)
    return bound


def _evidence(data: Any, where: str) -> Evidence:
    item = fields(data, ("method", "samples", "cohort", "power", "owner", "date"), where)
    samples = item["samples"]
    if type(samples) is not int or samples < MIN_SAMPLES:
        raise bad_field(where, "samples", samples, f"a whole number, at least {MIN_SAMPLES}")
    if not isinstance(item["cohort"], dict):
        raise bad_field(where, "cohort", item["cohort"], "an object")
    for name in _COHORT:
        if name not in item["cohort"]:
            raise InputError(f"{where}.cohort: missing field {name!r}; expected at least {list(_COHORT)}")
    power = fields(item["power"], ("caught", "missed"), f"{where}.power")
    caught, missed = (_names(power[name], f"{where}.power", name) for name in ("caught", "missed"))
    if not caught or set(caught) & set(missed):
        raise bad_field(f"{where}.power", "caught", list(caught), "at least one defect, none of them in 'missed'")
    return Evidence(
        method=text(item["method"], where, "method"),
        samples=samples,
        cohort=tuple(
            (text(name, f"{where}.cohort", "field name"), text(value, f"{where}.cohort", name))
            for name, value in item["cohort"].items()
        ),
        caught=caught,
        missed=missed,
        owner=text(item["owner"], where, "owner"),
        date=_day(item["date"], where),
    )


def _day(value: Any, where: str) -> str:
    day = text(value, where, "date")
    try:
        if not _DATE.fullmatch(day):
            raise ValueError
        date.fromisoformat(day)
    except ValueError:
        raise bad_field(where, "date", value, "a date, YYYY-MM-DD") from None
    return day


def _names(value: Any, where: str, field: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise bad_field(where, field, value, "a list of defect names")
    names = tuple(text(name, where, f"{field}[{i}]") for i, name in enumerate(value))
    if len(set(names)) != len(names):
        raise bad_field(where, field, value, "each defect once")
    return names


def text(value: Any, where: str, field: str) -> str:
    """A non-blank line of printable text, or InputError."""
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise bad_field(where, field, value, "one line of text")
    return value


def fields(data: Any, names: tuple[str, ...], where: str) -> dict[str, Any]:
    """An object with exactly these fields, or InputError."""
    if not isinstance(data, dict):
        raise InputError(f"{where}: is {data!r}; expected an object with fields {list(names)}")
    for name in names:
        if name not in data:
            raise InputError(f"{where}: missing field {name!r}; expected {list(names)}")
    for name in data:
        if name not in names:
            raise InputError(f"{where}: unknown field {name!r}; expected {list(names)}")
    return data
