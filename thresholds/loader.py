"""Reading and writing thresholds files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from conformance.errors import InputError
from conformance.jsonio import digest, jsonable, read_json, write_json
from thresholds.schema import SCHEMA, Cohort, Entry, parse

SHIPPED = Path(__file__).parent


@dataclass(frozen=True)
class Thresholds:
    """Limits by case."""

    entries: dict[str, Entry]

    def for_case(self, case_id: str) -> Entry | None:
        """The case's entry, or None: then there is nothing to judge by."""
        return self.entries.get(case_id)

    @property
    def digest(self) -> str:
        """sha256 over every limit and its evidence."""
        return digest([self.entries[case].as_dict() for case in sorted(self.entries)])


def load(source: Path | None = None, *, device: str | None = None) -> Thresholds:
    """Read a thresholds file, every ``*.json`` of a folder, or (None) the shipped ones.

    device: keep only the cohorts of this device (``environment.cohort_device``); every file is checked either way.
    InputError when a file is missing or malformed, a limit lacks evidence, or two kept files limit the same case.
    """
    source = SHIPPED if source is None else source
    if not source.exists():
        raise InputError(f"{source}: no such thresholds file or folder")
    entries: dict[str, Entry] = {}
    origin: dict[str, Path] = {}
    for path in sorted(source.glob("*.json")) if source.is_dir() else [source]:
        cohort, found = parse(read_json(path), str(path))
        if device is not None and cohort.device != device:
            continue
        for entry in found:
            if entry.case in origin:
                raise InputError(
                    f"{path}: case {entry.case!r} already has limits in {origin[entry.case]}; expected one"
                )
            entries[entry.case], origin[entry.case] = entry, path
    return Thresholds(entries)


def write(path: Path, entries: Iterable[Entry], cohort: Cohort) -> None:
    """Write one cohort's file, atomically. InputError when :func:`load` would refuse it; then nothing is written."""
    listed = [entry.as_dict() for entry in sorted(entries, key=lambda entry: entry.case)]
    data = {"schema": SCHEMA, "cohort": asdict(cohort), "entries": listed}
    parse(jsonable(data), str(path))
    write_json(path, data)
