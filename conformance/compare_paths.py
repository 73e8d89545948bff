"""Judge images that are already on disk: two of them, or two folders of frames."""

from __future__ import annotations

import platform
import re
import shlex
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from conformance.artifacts import write_frames
from conformance.case import slug
from conformance.compare import compare
from conformance.errors import InputError, bad_field
from conformance.generator import Sample
from conformance.media import IMAGE_SUFFIXES, LOSSY_SUFFIXES, read_image
from conformance.metrics.clip import ClipScorer
from conformance.results import CaseResult, Results


def compare_paths(
    a: Path,
    b: Path,
    *,
    limits: Mapping[str, float] | None,
    clip: ClipScorer | None,
    out: Path,
    name: str,
    exclude: tuple[str, ...] = (),
) -> Results:
    """Compare candidate ``a`` with reference ``b`` (both images, or both folders); the case is ``compare/<name>``.

    Frames of two folders belong together by file stem and are judged in natural order (frame_2 before frame_10).
    exclude: stems that are shown to both sides, such as conditioning frames, and are not judged. Frames and heat
    maps are written under ``out``. ``evidence`` of the result lists the judged, excluded and lossy files.

    InputError when a path is missing, empty or holds something else than images, the two sides do not have the
    same frames, or sizes differ: never judged in part, never resized.
    """
    started, clock = datetime.now(UTC), time.perf_counter()
    mine, theirs = _frame_files(a), _frame_files(b)
    if a.is_file() != b.is_file():
        raise InputError(f"{a} and {b}: one is a file and one a folder; expected two images or two folders")
    if a.is_file():
        theirs = dict(zip(mine, theirs.values(), strict=True))
    stems = _judged(a, b, mine, theirs, exclude)
    candidate, reference = _samples([mine[stem] for stem in stems], [theirs[stem] for stem in stems])
    result = compare(candidate, reference, limits=limits, clip=clip)
    lossy = [
        path.name for side in (mine, theirs) for stem in stems if (path := side[stem]).suffix.lower() in LOSSY_SUFFIXES
    ]
    case_id = f"compare/{name}"
    case = CaseResult(
        id=case_id,
        gate="reference",
        verdict=result.verdict,
        reason=result.reason + (f"; lossy input ({len(lossy)} of {2 * len(stems)} files)" if lossy else ""),
        axes={"model": "compare"},
        metrics=result.metrics,
        frames=write_frames(result.frames, candidate, reference, out, f"cases/{slug(case_id)}"),
        evidence={"frames": stems, "excluded": list(exclude), "lossy": lossy, "clip": clip.label if clip else None},
        seconds={"judge": time.perf_counter() - clock},
        command=shlex.join(["conformance", "compare", str(a), str(b)]),
    )
    run = {
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": time.perf_counter() - clock,
        "command": case.command,
        "shard": None,
        "ledger": _ledger(),
    }
    return Results(run=run, cases=(case,))


def _frame_files(path: Path) -> dict[str, Path]:
    """Image files by stem in natural order: those of a folder, or the one file. Hidden files do not count."""
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if path.is_file():
        return {path.stem: path}
    files: dict[str, Path] = {}
    for item in sorted(path.iterdir(), key=lambda item: (_natural(item.stem), item.name)):
        if item.name.startswith("."):
            continue
        if not item.is_file() or item.suffix.lower() not in IMAGE_SUFFIXES:
            raise InputError(f"{item}: not a frame; expected only {', '.join(IMAGE_SUFFIXES)} files in {path}")
        if item.stem in files:
            raise InputError(f"{item}: a second file for frame {item.stem!r} beside {files[item.stem].name}")
        files[item.stem] = item
    if not files:
        raise InputError(f"{path}: no frames; expected {', '.join(IMAGE_SUFFIXES)} files")
    return files


def _natural(stem: str) -> list[tuple[int, int, str]]:
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"([0-9]+)", stem) if part]


def _judged(
    a: Path, b: Path, mine: Mapping[str, Path], theirs: Mapping[str, Path], exclude: tuple[str, ...]
) -> list[str]:
    """The stems to judge. InputError when the sides do not have the same or none is left."""
    lacks = [
        f"{folder} lacks {', '.join(missing)}"
        for folder, missing in (
            (a, [stem for stem in theirs if stem not in mine]),
            (b, [stem for stem in mine if stem not in theirs]),
        )
        if missing
    ]
    if lacks:
        raise InputError(f"the folders hold different frames: {'; '.join(lacks)}")
    for stem in exclude:
        if stem not in mine:
            raise bad_field("compare", "exclude", stem, f"a frame of {a}")
    stems = [stem for stem in mine if stem not in exclude]
    if not stems:
        raise bad_field("compare", "exclude", exclude, "at least one frame left to judge")
    return stems


def _samples(mine: list[Path], theirs: list[Path]) -> tuple[Sample, Sample]:
    """Both sides as one output each. InputError when any two of the images differ in size."""
    images: dict[Path, np.ndarray] = {}
    for path in (*mine, *theirs):
        images[path] = read_image(path)
        first = images[mine[0]]
        if images[path].shape != first.shape:
            sizes = (f"{file} is {images[file].shape[1]}x{images[file].shape[0]}" for file in (mine[0], path))
            raise InputError(f"different sizes: {' and '.join(sizes)} pixels; nothing is resized")
    mine_sample, theirs_sample = (
        Sample(
            frames=np.stack([images[path] for path in paths])[None],
            frames_float=None,
            audio=None,
            audio_rate=None,
            latents={},
        )
        for paths in (mine, theirs)
    )
    return mine_sample, theirs_sample


def _ledger() -> dict[str, Any]:
    packages = ("numpy", "scikit-image", "pillow")
    return {"python": platform.python_version(), "versions": {name: version(name) for name in packages}}
