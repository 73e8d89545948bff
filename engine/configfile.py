"""Checkpoint config files as frozen dataclasses: every key is used, checked against what is implemented, or refused."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from conformance.errors import InputError, bad_field
from conformance.jsonio import read_json

T = TypeVar("T")


def _typed(where: str, name: str, value: Any, hint: Any) -> Any:
    kinds = typing.get_args(hint)
    if typing.get_origin(hint) is Literal:
        if value not in kinds:
            raise bad_field(where, name, value, f"one of {kinds}")
        return value
    if typing.get_origin(hint) is tuple:
        if kinds[-1] is Ellipsis:
            if not isinstance(value, list | tuple) or not value:
                raise bad_field(where, name, value, "a list of one value or more")
            kinds = kinds[:1] * len(value)
        if not isinstance(value, list | tuple) or len(value) != len(kinds):
            raise bad_field(where, name, value, f"a list of {len(kinds)} values")
        return tuple(_typed(where, name, item, kind) for item, kind in zip(value, kinds, strict=True))
    if hint is float and type(value) is int:
        value = float(value)
    if type(value) is not hint:
        raise bad_field(where, name, value, f"of type {hint.__name__}")
    if hint in (int, float) and value <= 0:
        raise bad_field(where, name, value, "positive")
    return value


def parse(cls: type[T], path: Path, *, fixed: Mapping[str, tuple[Any, Any]], unused: frozenset[str] = frozenset()) -> T:
    """The JSON object at ``path`` as ``cls``; see ``parse_object``."""
    return parse_object(cls, read_json(path), str(path), fixed=fixed, unused=unused)


def parse_object(
    cls: type[T],
    data: Any,
    where: str,
    *,
    fixed: Mapping[str, tuple[Any, Any]],
    unused: frozenset[str] = frozenset(),
) -> T:
    """The parsed JSON object ``data`` as ``cls``; ``where`` names it in errors.

    fixed: key -> (the one implemented value, the value an absent key stands for). unused: keys without a
    meaning for the forward pass. Keys with a leading underscore are metadata. InputError names the file, the
    key, its value and what was expected.
    """
    if not isinstance(data, dict):
        raise InputError(f"{where}: expected an object, got {type(data).__name__}")
    for name, (implemented, absent) in fixed.items():
        value = data.get(name, absent)
        if value != implemented or type(value) is not type(implemented):
            raise bad_field(where, name, value, f"{implemented!r}, which is all that is implemented")
    hints = typing.get_type_hints(cls)
    values = {}
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        if field.name in data:
            values[field.name] = _typed(where, field.name, data[field.name], hints[field.name])
        elif field.default is dataclasses.MISSING:
            raise InputError(f"{where}: missing field {field.name!r}")
    unknown = {name for name in data if not name.startswith("_")} - values.keys() - fixed.keys() - unused
    if unknown:
        raise InputError(f"{where}: unknown field {sorted(unknown)[0]!r}, which is not implemented")
    return cls(**values)
