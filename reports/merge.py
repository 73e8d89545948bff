"""Several results files (the shards of a run) become one, with everything they link."""

from __future__ import annotations

import filecmp
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from conformance.errors import InputError, bad_field
from conformance.jsonio import number
from conformance.results import CaseResult, Results, check_unique, load

_SHARD = re.compile(r"([1-9][0-9]*)/([1-9][0-9]*)")


def merge(paths: Sequence[Path], out: Path) -> Results:
    """Read results files, check that they belong together, copy what they link into ``out`` (same relative paths).

    One file that is no shard comes back as it is. Links to files that do not exist are kept: the report names them.
    InputError: a file that is unreadable, truncated or malformed; a case and gate twice; shards of different totals,
    a shard twice or missing, shards mixed with whole runs; a link out of its folder; two different files of one name.
    """
    if not paths:
        raise InputError("report: no results file given")
    files = [path / "results.json" if path.is_dir() else path for path in paths]
    loaded = [(path, load(path)) for path in files]
    _check_shards(loaded)
    cases = [case for _, results in loaded for case in results.cases]
    check_unique(cases, "report")
    for source, target in _plan(loaded, out).values():
        _copy(source, target)
    if len(loaded) == 1:
        return loaded[0][1]
    return Results(run=_merged_run(loaded), cases=tuple(sorted(cases, key=lambda case: (case.id, case.gate))))


def _check_shards(loaded: Sequence[tuple[Path, Results]]) -> None:
    seen: dict[int, Path] = {}
    totals: dict[int, Path] = {}
    for path, results in loaded:
        shard = results.run.get("shard")
        if shard is None:
            continue
        match = _SHARD.fullmatch(shard) if isinstance(shard, str) else None
        if not match or int(match[1]) > int(match[2]):
            raise bad_field(f"{path}, run", "shard", shard, "'i/n' with i from 1 to n, or null")
        index, total = int(match[1]), int(match[2])
        if index in seen and total in totals:
            raise InputError(f"{path}: shard {shard} is also in {seen[index]}")
        seen[index], totals[total] = path, path
        if len(totals) > 1:
            raise InputError(
                f"{path}: shard {shard} does not belong to the {min(totals)}-shard run of {next(iter(totals.values()))}"
            )
    if not seen:
        return
    if len(seen) != len(loaded):
        whole = next(path for path, results in loaded if results.run.get("shard") is None)
        raise InputError(f"{whole}: a whole run cannot be merged with shards")
    total = next(iter(totals))
    missing = [f"{index}/{total}" for index in range(1, total + 1) if index not in seen]
    if missing:
        raise InputError(f"report: of {total} shards, {', '.join(missing[:20])} missing")


def _links(case: CaseResult) -> Iterator[str]:
    for frame in case.frames:
        yield from (link for link in (frame.candidate, frame.reference, frame.heat) if link)
    yield from (link for link in case.files.values() if link)


def _plan(loaded: Sequence[tuple[Path, Results]], out: Path) -> dict[str, tuple[Path, Path]]:
    """Link -> (file beside its results, its place under ``out``). Nothing is copied before every link is checked."""
    plan: dict[str, tuple[Path, Path]] = {}
    for path, results in loaded:
        root, goal = path.parent.resolve(), out.resolve()
        for link in (link for case in results.cases for link in _links(case)):
            source, target = (root / link).resolve(), goal / link
            if not source.is_relative_to(root) or not target.resolve().is_relative_to(goal):
                raise bad_field(str(path), "path", link, "a path inside the results folder, links followed")
            if not source.is_file():
                continue
            first, _ = plan.setdefault(link, (source, target))
            if first != source and not filecmp.cmp(first, source, shallow=False):
                raise InputError(f"{path}: {link!r} is another file than the one of the same name in {first}")
    return plan


def _copy(source: Path, target: Path) -> None:
    """Copy a file; the copy appears whole or not at all."""
    if target.exists() and target.samefile(source):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=".copy.")
    os.close(handle)
    try:
        shutil.copyfile(source, name)
        os.chmod(name, 0o644)
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _merged_run(loaded: Sequence[tuple[Path, Results]]) -> dict[str, Any]:
    """Earliest start, latest end, seconds summed, every command; the environment of each shard where they differ."""
    runs = [(path, results.run) for path, results in loaded]
    ledgers = [run.get("ledger") or {} for _, run in runs]
    same = all(ledger == ledgers[0] for ledger in ledgers)
    names = [str(run.get("shard") or path) for path, run in runs]
    return {
        "started": min(_texts(runs, "started"), default=None),
        "finished": max(_texts(runs, "finished"), default=None),
        "seconds": sum(_seconds(path, run) for path, run in runs),
        "command": None,
        "commands": list(dict.fromkeys(_texts(runs, "command"))),
        "shard": None,
        "shards": sorted(
            (run["shard"] for _, run in runs if run.get("shard")), key=lambda name: int(name.split("/")[0])
        ),
        "ledger": ledgers[0] if same else dict(zip(names, ledgers, strict=True)),
    }


def _texts(runs: Sequence[tuple[Path, dict[str, Any]]], field: str) -> list[str]:
    for path, run in runs:
        if not isinstance(run.get(field), str | None):
            raise bad_field(f"{path}, run", field, run[field], "a text")
    return [run[field] for _, run in runs if run.get(field)]


def _seconds(path: Path, run: dict[str, Any]) -> float:
    try:
        return number(run.get("seconds", 0.0))
    except ValueError:
        raise bad_field(f"{path}, run", "seconds", run.get("seconds"), "a number") from None
