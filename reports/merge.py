"""Several results files (the shards of a run) become one, with everything they link."""

from __future__ import annotations

import filecmp
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
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
    check_unique((case for _, results in loaded for case in results.cases), "report")
    plan, cases = _plan(loaded, out)
    for source, target in plan.values():
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


_Plan = dict[str, tuple[Path, Path]]  # link -> file beside its results, its place under ``out``


def _plan(loaded: Sequence[tuple[Path, Results]], out: Path) -> tuple[_Plan, list[CaseResult]]:
    """What to copy, and the cases with their links as they will be. Nothing is copied before every link is checked.

    Two gates of one case, from two runs, have files of the same names: the later one's go to a folder of its gate.
    """
    plan: _Plan = {}
    owners: dict[str, CaseResult] = {}  # id and gate together are unique, so one id means another gate
    cases = []
    for path, results in loaded:
        for case in results.cases:
            files = _files(path, case, "", out)
            taken = {link for link in files if link in plan and not _same(plan[link][0], files[link][0])}
            if taken and all(owners[link].id == case.id for link in taken):
                case, files, taken = _moved(case), _files(path, case, f"{case.gate}/", out), set()
            for link, (source, target) in files.items():
                if link in taken or (link in plan and not _same(plan[link][0], source)):
                    raise InputError(
                        f"{path}: {link!r} is another file than the one of the same name in {plan[link][0]}"
                    )
                plan.setdefault(link, (source, target))
                owners.setdefault(link, case)
            cases.append(case)
    return plan, cases


def _files(path: Path, case: CaseResult, place: str, out: Path) -> _Plan:
    """The files of one case, their links put behind ``place``; InputError when one leads out of its folder."""
    root, goal = path.parent.resolve(), out.resolve()
    found: _Plan = {}
    for link in _links(case):
        source, target = (root / link).resolve(), goal / f"{place}{link}"
        if not source.is_relative_to(root) or not target.resolve().is_relative_to(goal):
            raise bad_field(str(path), "path", link, "a path inside the results folder, links followed")
        if source.is_file():
            found[f"{place}{link}"] = (source, target)
    return found


def _moved(case: CaseResult) -> CaseResult:
    """The case with every link put behind its gate."""

    def at(link: str) -> str:
        return f"{case.gate}/{link}" if link else ""

    frames = tuple(
        replace(frame, candidate=at(frame.candidate), reference=at(frame.reference), heat=at(frame.heat))
        for frame in case.frames
    )
    return replace(case, frames=frames, files={name: at(link) for name, link in case.files.items()})


def _same(first: Path, second: Path) -> bool:
    return first == second or filecmp.cmp(first, second, shallow=False)


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
