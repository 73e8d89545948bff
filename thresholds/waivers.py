"""Waivers: defects that a case is known not to catch, each with reason, owner and last day. ``waivers.json``::

    {"schema": "conformance.waivers/1",
     "waivers": [{"defect": str, "cases": "<glob over case ids>",
                  "reason": str, "owner": str, "expires": "YYYY-MM-DD"}]}

A waiver holds through the day it names; the day after, the defect counts as missed again and the case is not judged.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from conformance.errors import InputError, bad_field
from conformance.jsonio import read_json
from thresholds.fields import day as parse_day
from thresholds.fields import fields, listed, text

SCHEMA = "conformance.waivers/1"
NAME = "waivers.json"


def today() -> date:
    """The day in UTC: the same on every machine of a run."""
    return datetime.now(UTC).date()


@dataclass(frozen=True, kw_only=True)
class Waiver:
    """cases: a glob over whole case ids. expires: the last day it holds, ``YYYY-MM-DD``."""

    defect: str
    cases: str
    reason: str
    owner: str
    expires: str

    def covers(self, case: str, defect: str) -> bool:
        """Whatever the date: :meth:`holds` asks for that."""
        return self.defect == defect and fnmatchcase(case, self.cases)

    def holds(self, day: date) -> bool:
        return day <= date.fromisoformat(self.expires)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def read(path: Path) -> tuple[Waiver, ...]:
    """The waivers of a file; none where there is no file. InputError when it is malformed."""
    if not path.exists():
        return ()
    data, where = read_json(path, unique=True), str(path)
    found = data.get("schema") if isinstance(data, dict) else data
    if found != SCHEMA:
        raise bad_field(where, "schema", found, repr(SCHEMA))
    items = listed(fields(data, ("schema", "waivers"), where)["waivers"], where, "waivers")
    waivers = tuple(_waiver(item, f"{where}: waivers[{i}]") for i, item in enumerate(items))
    seen: set[tuple[str, str]] = set()
    for waiver in waivers:
        if (waiver.defect, waiver.cases) in seen:
            raise InputError(f"{where}: defect {waiver.defect!r} is waived twice for {waiver.cases!r}; expected once")
        seen.add((waiver.defect, waiver.cases))
    return waivers


def _waiver(data: Any, where: str) -> Waiver:
    item = fields(data, ("defect", "cases", "reason", "owner", "expires"), where)
    plain = {name: text(item[name], where, name) for name in ("defect", "cases", "reason", "owner")}
    return Waiver(**plain, expires=parse_day(item["expires"], where, "expires"))
