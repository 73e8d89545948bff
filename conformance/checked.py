"""Frozen dataclasses that check their own fields' types and round trip through JSON."""

from __future__ import annotations

import math
import typing
from dataclasses import asdict, fields, is_dataclass
from typing import Any, Self

from conformance.errors import InputError, bad_field


def check_type(where: str, name: str, value: Any, hint: Any) -> Any:
    """``value`` as ``hint``; lists become tuples, dicts become dataclasses. InputError when it does not fit."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if is_dataclass(hint) and isinstance(hint, type):
        return value if isinstance(value, hint) else _build(hint, value, f"{where}.{name}")
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise bad_field(where, name, value, "a list")
        return tuple(check_type(where, f"{name}[{i}]", item, args[0]) for i, item in enumerate(value))
    if type(None) in args:
        return None if value is None else check_type(where, name, value, args[0])
    if hint is float and type(value) is int:
        value = float(value)
    if type(value) is not hint:
        raise bad_field(where, name, value, f"of type {hint.__name__}")
    if hint is float and not math.isfinite(value):
        raise bad_field(where, name, value, "a finite number")
    return value


def _build(cls: Any, data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        raise InputError(f"{where}: expected an object, got {data!r}")
    names = {field.name for field in fields(cls)}
    for problem, keys in (("unknown", data.keys() - names), ("missing", names - data.keys())):
        if keys:
            raise InputError(f"{where}: {problem} field {sorted(keys)[0]!r}; fields are {sorted(names)}")
    return cls(**data)


class Checked:
    """Type checks by the class's own annotations, before the class's ``_validate``."""

    def __post_init__(self) -> None:
        where = type(self).__name__.lower()
        for name, hint in typing.get_type_hints(type(self)).items():
            object.__setattr__(self, name, check_type(where, name, getattr(self, name), hint))
        self._validate(where)

    def _validate(self, where: str) -> None:
        """Checks beyond types; InputError names field, value and what was expected."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(typing.cast(Any, self))

    @classmethod
    def from_dict(cls, data: Any) -> Self:
        """The inverse of ``as_dict``. InputError on unknown, missing or ill-typed fields."""
        return typing.cast(Self, _build(cls, data, cls.__name__.lower()))
