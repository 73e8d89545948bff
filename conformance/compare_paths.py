"""Judge what is already on disk: images, folders of frames, videos, sound, saved samples."""

from __future__ import annotations

import platform
import shlex
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from conformance.artifacts import write_frames
from conformance.case import slug
from conformance.codec_floor import codec_floor
from conformance.compare import compare
from conformance.errors import InputError, bad_field
from conformance.generator import Sample
from conformance.metrics.clip import ClipScorer
from conformance.results import CaseResult, Results
from conformance.scratch import FrameStore, different_sizes
from conformance.sides import Side, open_side

SHOWN = ("ssim", "psnr", "mean_abs_diff")  # of the codec's floor, in the reason


@dataclass(frozen=True)
class Pairing:
    """Frames that belong together, by their names on each side, and what only one side has."""

    mine: tuple[str, ...]
    theirs: tuple[str, ...]
    missing: tuple[str, ...] = ()


def compare_paths(
    a: Path,
    b: Path,
    *,
    limits: Mapping[str, float] | None,
    clip: ClipScorer | None,
    out: Path,
    name: str,
    exclude: tuple[str, ...] = (),
    common: bool = False,
) -> Results:
    """Compare candidate ``a`` with reference ``b``; the case is ``compare/<name>``.

    Frames of two folders belong together by file stem, those of a video by their place, and so do those of a folder
    and a video; all are judged in natural order (frame_2 before frame_10).
    exclude: names of frames that are shown to both sides, such as conditioning frames, and are not judged. common:
    judge the frames that both sides have and say what is missing, rather than refuse. Frames and heat maps are
    written under ``out``. ``evidence`` of the result lists the judged, excluded, missing and lossy files, and what
    the lossy codec alone does to the reference (``codec_floor``).

    InputError when a path is missing, damaged, empty or holds something else, the two sides do not have the same
    frames (without ``common``), or sizes differ: never judged in part unasked, never resized.
    """
    started, clock = datetime.now(UTC), time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="conformance-compare-") as folder:
        scratch = Path(folder)
        mine, theirs = (open_side(path, FrameStore(scratch / f"{i}.raw")) for i, path in enumerate((a, b)))
        pairing = _pair(mine, theirs, exclude, common)
        notes = []
        candidate, reference = _samples(mine, theirs, pairing, scratch)
        if (mine.sound is None) != (theirs.sound is None) and {mine.kind, theirs.kind} & {"image", "folder"}:
            silent, heard = (mine, theirs) if mine.sound is None else (theirs, mine)
            notes.append(f"the sound of {heard.path.name} was not judged: {silent.path.name} is pictures")
        result = compare(candidate, reference, limits=limits, clip=clip, sound_alone=mine.kind == "sound")
        if pairing.missing:
            frames = len({*mine.names, *theirs.names})
            notes.append(f"judged in part, {len(pairing.mine)} of {frames} frames: {'; '.join(pairing.missing)}")
        lossy = [*mine.lossy(pairing.mine), *theirs.lossy(pairing.theirs)]
        floor: dict[str, Any] = {}
        if lossy:
            files = len(pairing.mine) * 2 if mine.files and theirs.files else 2
            notes.append(f"lossy input ({len(lossy)} of {files} files)")
        if lossy and pairing.mine:
            floor = _floor(mine, theirs, pairing, reference, scratch)
            notes.append(_floor_text(floor))
        case_id = f"compare/{name}"
        case = CaseResult(
            id=case_id,
            gate="reference",
            verdict=result.verdict,
            reason="; ".join([result.reason, *notes]),
            axes={"model": "compare"},
            metrics=result.metrics,
            latents=result.latents,
            frames=write_frames(result.frames, candidate, reference, out, f"cases/{slug(case_id)}"),
            evidence={
                "frames": list(pairing.mine),
                "excluded": list(exclude),
                "missing": list(pairing.missing),
                "lossy": lossy,
                "codec_floor": floor,
                "clip": clip.label if clip else None,
            },
            seconds={"judge": time.perf_counter() - clock},
            command=shlex.join(["conformance", "compare", str(a), str(b), *(["--common"] if common else [])]),
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


def _pair(mine: Side, theirs: Side, exclude: tuple[str, ...], common: bool) -> Pairing:
    """Which frames are judged. InputError when the sides are unlike, do not have the same or none is left."""
    a, b = mine.path, theirs.path
    if ("sound" in (mine.kind, theirs.kind)) and mine.kind != theirs.kind:
        raise InputError(f"{a} and {b}: one is sound and one is not; expected two of a kind")
    if ("image" in (mine.kind, theirs.kind)) and mine.kind != theirs.kind:
        raise InputError(f"{a} and {b}: one is a file and one a folder; expected two images or two folders")
    if mine.kind == "sound":
        return Pairing((), ())
    if mine.kind == "image" or "video" in (mine.kind, theirs.kind):
        pairs, missing = _by_place(mine, theirs)
    else:
        pairs, missing = _by_stem(mine, theirs)
    if missing and not common:
        raise InputError(f"{_what(mine, theirs)} hold different frames: {'; '.join(missing)}")
    for stem in exclude:
        if stem not in pairs:
            raise bad_field("compare", "exclude", stem, f"a frame of {a}")
    kept = {x: y for x, y in pairs.items() if x not in exclude}
    if not kept:
        raise bad_field("compare", "exclude", exclude, "at least one frame left to judge")
    return Pairing(tuple(kept), tuple(kept.values()), tuple(missing))


def _what(mine: Side, theirs: Side) -> str:
    kinds = {mine.kind, theirs.kind}
    return "the videos" if kinds == {"video"} else "the two sides" if "video" in kinds else "the folders"


def _by_stem(mine: Side, theirs: Side) -> tuple[dict[str, str], list[str]]:
    missing = [
        f"{side.path} lacks {', '.join(lacks)}"
        for side, other in ((mine, theirs), (theirs, mine))
        if (lacks := [name for name in other.names if name not in side.files])
    ]
    return {name: name for name in mine.names if name in theirs.files}, missing


def _by_place(mine: Side, theirs: Side) -> tuple[dict[str, str], list[str]]:
    pairs = dict(zip(mine.names, theirs.names, strict=False))
    missing = [
        f"{short.path} has {len(short.names)} frames, {long.path} has {len(long.names)}"
        for short, long in ((mine, theirs), (theirs, mine))
        if len(short.names) < len(long.names)
    ]
    return pairs, missing


def _samples(mine: Side, theirs: Side, pairing: Pairing, scratch: Path) -> tuple[Sample, Sample]:
    """Both sides. InputError when any two of the frames differ in size."""
    heard = mine.sound is not None and theirs.sound is not None
    heard = heard or not {mine.kind, theirs.kind} & {"image", "folder"}
    both = mine.kind == theirs.kind == "sample"
    outputs = _outputs(pairing.mine) if both else 1
    samples, frames = [], []
    for index, (side, names) in enumerate(((mine, pairing.mine), (theirs, pairing.theirs))):
        store = FrameStore(scratch / f"judged-{index}.raw")
        frames.append(side.frames(names, store) if names else np.zeros((0, 0, 0, 3), np.uint8))
    if frames[0].shape[1:] != frames[1].shape[1:]:
        raise different_sizes(
            *(
                (_first(s, n), f.shape[1:])
                for s, n, f in zip((mine, theirs), (pairing.mine, pairing.theirs), frames, strict=True)
            )
        )
    for side, each in zip((mine, theirs), frames, strict=True):
        samples.append(
            Sample(
                frames=each.reshape(outputs, len(each) // outputs, *each.shape[1:]),
                frames_float=None,
                audio=side.sound.audio[None] if heard and side.sound else None,
                audio_rate=side.sound.rate if heard and side.sound else None,
                latents=side.latents if both else {},
            )
        )
    return samples[0], samples[1]


def _first(side: Side, names: Sequence[str]) -> str:
    return str(side.files.get(names[0], side.path))


def _outputs(names: Sequence[str]) -> int:
    """Outputs of a saved sample, whose frames are called OUTPUT-FRAME; 1 when they are not a whole grid."""
    outputs = len({name.split("-")[0] for name in names})
    return outputs if all("-" in name for name in names) and len(names) % outputs == 0 else 1


def _floor(mine: Side, theirs: Side, pairing: Pairing, reference: Sample, scratch: Path) -> dict[str, Any]:
    """What the candidate's codec, or else the reference's, does to the reference."""
    side, names = (mine, pairing.mine) if mine.lossy(pairing.mine) else (theirs, pairing.theirs)
    pictures = reference.frames.reshape(-1, *reference.frames.shape[2:])
    if side.codec is not None and side.codec.lossless:
        return {"codec": side.sound.codec if side.sound else "", "note": "the floor of a sound codec is not measured"}
    floor = codec_floor(side, pictures, names, scratch)
    if "metrics" in floor and theirs.lossy(pairing.theirs):
        floor["note"] = "a lower bound: the reference was coded before"
    return floor


def _floor_text(floor: Mapping[str, Any]) -> str:
    if "metrics" not in floor:
        return str(floor["note"])
    values = ", ".join(f"{name} {floor['metrics'][name]:.4g}" for name in SHOWN if name in floor["metrics"])
    note = f" ({floor['note']})" if "note" in floor else ""
    return f"the codec alone ({floor['codec']}) moves the reference to {values}{note}"


def _ledger() -> dict[str, Any]:
    packages = ("numpy", "scikit-image", "pillow", "av")
    return {"python": platform.python_version(), "versions": {name: version(name) for name in packages}}
