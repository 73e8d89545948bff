"""Reading the configuration of an official file: values of the right type, or what an absent key stands for.

Unlike configurations of the diffusers layout it may have keys that nobody reads: those that ltx-core reads count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from conformance.errors import bad_field

REQUIRED: Any = object()  # as the value of an absent key


@dataclass(frozen=True)
class Section:
    """An object of the configuration. where: its place, for errors."""

    where: str
    data: Mapping[str, Any]

    def section(self, name: str) -> Section:
        """The object under ``name``; empty when absent. InputError when it is something else."""
        value = self.data.get(name, {})
        if not isinstance(value, dict):
            raise bad_field(self.where, name, value, "an object")
        return Section(f"{self.where}.{name}", value)

    def integer(self, name: str, absent: Any) -> int:
        """A positive whole number; released files also write it as a float."""
        return self._integer(name, self._value(name, absent, "a positive integer"))

    def number(self, name: str, absent: Any) -> float:
        value = self._value(name, absent, "a positive number")
        if type(value) not in (int, float) or not 0 < value < float("inf"):
            raise bad_field(self.where, name, value, "a positive number")
        return float(value)

    def flag(self, name: str, absent: Any) -> bool:
        value = self._value(name, absent, "true or false")
        if type(value) is not bool:
            raise bad_field(self.where, name, value, "true or false")
        return value

    def integers(self, name: str, absent: Any, count: int | None = None) -> list[int]:
        """``count`` positive whole numbers, or one and more."""
        expected = "a list of positive integers" if count is None else f"a list of {count} positive integers"
        value = self._value(name, absent, expected)
        if not isinstance(value, list) or not value or count not in (None, len(value)):
            raise bad_field(self.where, name, value, expected)
        return [self._integer(name, item) for item in value]

    def rows(self, name: str, absent: Any) -> list[list[int]]:
        """A list of lists of positive whole numbers."""
        value = self._value(name, absent, "a list of lists")
        if not isinstance(value, list) or not value or not all(isinstance(row, list) and row for row in value):
            raise bad_field(self.where, name, value, "a list of lists")
        return [[self._integer(name, item) for item in row] for row in value]

    def only(self, name: str, implemented: Any, absent: Any = None) -> None:
        """InputError unless the value is the one that is implemented."""
        value = self.data.get(name, absent)
        if value != implemented or isinstance(value, bool) != isinstance(implemented, bool):
            raise bad_field(self.where, name, value, f"{implemented!r}, which is all that is implemented")

    def _value(self, name: str, absent: Any, expected: str) -> Any:
        value = self.data.get(name, absent)
        if value is REQUIRED:
            raise bad_field(self.where, name, None, expected)
        return value

    def _integer(self, name: str, value: Any) -> int:
        if type(value) is float and value.is_integer():
            value = int(value)
        if type(value) is not int or value <= 0:
            raise bad_field(self.where, name, value, "a positive integer")
        return value
