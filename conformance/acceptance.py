"""Who accepted what, why, and until when: of stored outputs and of gaps. Nothing is accepted without an end."""

from __future__ import annotations

import datetime
from dataclasses import asdict, dataclass
from typing import Any

from conformance.errors import bad_field

FIELDS = ("reason", "owner", "date", "expires")


@dataclass(frozen=True, kw_only=True)
class Acceptance:
    """reason, owner: one line of text each. date: of the decision. expires: the last day it holds. ``YYYY-MM-DD``."""

    reason: str
    owner: str
    date: str
    expires: str

    def expired(self, today: datetime.date) -> bool:
        return today > datetime.date.fromisoformat(self.expires)

    def as_dict(self) -> dict[str, str]:
        return asdict(self)

    def __str__(self) -> str:
        return f"accepted by {self.owner} on {self.date} until {self.expires}: {self.reason}"


def parse(data: Any, where: str) -> Acceptance:
    """InputError names the field, its value and what was expected."""
    if not isinstance(data, dict) or data.keys() != set(FIELDS):
        raise bad_field(where, "acceptance", data, f"an object with fields {list(FIELDS)}")
    for name in ("reason", "owner"):
        text = data[name]
        if not isinstance(text, str) or not text.strip() or not text.isprintable():
            raise bad_field(where, name, text, "one line of text")
    for name in ("date", "expires"):
        day(data[name], where, name)
    if data["expires"] < data["date"]:
        raise bad_field(where, "expires", data["expires"], f"not before the date, {data['date']}")
    return Acceptance(**data)


def day(value: Any, where: str, field: str) -> datetime.date:
    """A date as ``YYYY-MM-DD``, or InputError."""
    try:
        found = datetime.date.fromisoformat(value)
        if found.isoformat() != value:
            raise ValueError
    except (TypeError, ValueError):
        raise bad_field(where, field, value, "a date, YYYY-MM-DD") from None
    return found
