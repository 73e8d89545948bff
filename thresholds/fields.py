"""Checked fields of the project's own JSON files: every refusal is one InputError line."""

from __future__ import annotations

import math
import re
from datetime import date
from typing import Any

from conformance.errors import InputError, bad_field
from conformance.jsonio import number

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def fields(data: Any, names: tuple[str, ...], where: str) -> dict[str, Any]:
    """An object with exactly these fields."""
    if not isinstance(data, dict):
        raise InputError(f"{where}: is {data!r}; expected an object with fields {list(names)}")
    for name in names:
        if name not in data:
            raise InputError(f"{where}: missing field {name!r}; expected {list(names)}")
    for name in data:
        if name not in names:
            raise InputError(f"{where}: unknown field {name!r}; expected {list(names)}")
    return data


def text(value: Any, where: str, field: str) -> str:
    """A non-blank line of printable text."""
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise bad_field(where, field, value, "one line of text")
    return value


def listed(value: Any, where: str, field: str) -> list[Any]:
    if not isinstance(value, list):
        raise bad_field(where, field, value, "a list")
    return value


def names(value: Any, where: str, field: str) -> tuple[str, ...]:
    """Lines of text, each once."""
    found = tuple(text(name, where, f"{field}[{i}]") for i, name in enumerate(listed(value, where, field)))
    if len(set(found)) != len(found):
        raise bad_field(where, field, value, "each name once")
    return found


def day(value: Any, where: str, field: str) -> str:
    """A date, ``YYYY-MM-DD``."""
    found = text(value, where, field)
    try:
        if not _DATE.fullmatch(found):
            raise ValueError
        date.fromisoformat(found)
    except ValueError:
        raise bad_field(where, field, value, "a date, YYYY-MM-DD") from None
    return found


def finite(value: Any, where: str, field: str, *, infinite: bool = False) -> float:
    """A JSON number as float. infinite: also take ``"inf"``, the way the project writes infinity."""
    try:
        if isinstance(value, str) and not (infinite and value == "inf"):
            raise ValueError
        result = number(value)
        if not math.isfinite(result) and not isinstance(value, str):
            raise ValueError
    except (ValueError, OverflowError):
        raise bad_field(where, field, value, "a finite number") from None
    return result
