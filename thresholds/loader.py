"""Reading and writing thresholds files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from conformance.errors import InputError
from conformance.jsonio import digest, jsonable, read_json, write_atomic
from thresholds import waivers
from thresholds.schema import SCHEMA, Cohort, Entry, parse
from thresholds.waivers import Waiver

SHIPPED = Path(__file__).parent


@dataclass(frozen=True)
class Thresholds:
    """Limits by case, and the waivers beside them."""

    entries: dict[str, Entry]
    waivers: tuple[Waiver, ...] = ()

    def for_case(self, case_id: str) -> Entry | None:
        """The case's entry, or None: then there is nothing to judge by."""
        return self.entries.get(case_id)

    @property
    def digest(self) -> str:
        """sha256 over every limit, its evidence and the waivers."""
        entries = [self.entries[case].as_dict() for case in sorted(self.entries)]
        return digest([entries, [waiver.as_dict() for waiver in self.waivers]])

    @property
    def unused(self) -> tuple[Waiver, ...]:
        """Waivers that cover nothing which any entry misses."""
        used = {waiver for entry in self.entries.values() for waiver in entry.waivers}
        return tuple(waiver for waiver in self.waivers if waiver not in used)


def load(source: Path | None = None, *, device: str | None = None) -> Thresholds:
    """Read a thresholds file, every ``*.json`` of a folder, or (None) the shipped ones, and ``waivers.json`` there.

    device: keep only the cohorts of this device (``environment.cohort_device``); every file is checked either way.
    InputError when a file is missing or malformed, a limit lacks evidence, or two kept files limit the same case.
    """
    source = SHIPPED if source is None else source
    if not source.exists():
        raise InputError(f"{source}: no such thresholds file or folder")
    beside = (source if source.is_dir() else source.parent) / waivers.NAME
    found = waivers.read(beside)
    entries: dict[str, Entry] = {}
    origin: dict[str, Path] = {}
    for path in sorted(source.glob("*.json")) if source.is_dir() else [source]:
        if path == beside:
            continue
        cohort, parsed = parse(read_json(path), str(path))
        if device is not None and cohort.device != device:
            continue
        for entry in parsed:
            if entry.case in origin:
                raise InputError(
                    f"{path}: case {entry.case!r} already has limits in {origin[entry.case]}; expected one"
                )
            covering = (w for w in found if any(w.covers(entry.case, name) for name in entry.source.missed))
            entries[entry.case], origin[entry.case] = replace(entry, waivers=tuple(covering)), path
    return Thresholds(entries, found)


def write(path: Path, entries: Iterable[Entry], cohort: Cohort) -> None:
    """Write one cohort's file, atomically. InputError when :func:`load` would refuse it; then nothing is written."""
    listed = [entry.as_dict() for entry in sorted(entries, key=lambda entry: entry.case)]
    data = jsonable({"schema": SCHEMA, "cohort": asdict(cohort), "entries": listed})
    parse(data, str(path))
    write_atomic(path, "".join(_lines(data, "", depth=6)) + "\n")


def _lines(value: Any, indent: str, depth: int) -> Iterator[str]:
    """JSON whose innermost values stay on one line: a metric's limit, a mode, a caught defect."""
    nested = isinstance(value, dict | list) and any(isinstance(item, dict | list) for item in _items(value))
    if not nested or not depth or _flat(value):
        yield json.dumps(value, allow_nan=False)
        return
    keys = [f"{json.dumps(key)}: " for key in value] if isinstance(value, dict) else [""] * len(value)
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    yield opening
    for i, (key, item) in enumerate(zip(keys, _items(value), strict=True)):
        yield f"{',' if i else ''}\n{indent} {key}"
        yield from _lines(item, f"{indent} ", depth - 1)
    yield f"\n{indent}{closing}"


def _items(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else list(value)


def _flat(value: Any) -> bool:
    """Whether the value is small enough for one line though something is inside it."""
    return len(json.dumps(value, allow_nan=False)) <= 140
