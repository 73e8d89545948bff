"""Every metric of two samples, wherever their structures agree: no limits, no verdict.

Shapes: B (outputs), F (frames), H, W (pixels), C (channels), N (audio samples).
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from conformance.errors import InputError
from conformance.generator import Sample
from conformance.metrics import REGISTRY, AudioPair, FramePair, MotionPair, StereoPair
from conformance.metrics.clip import ClipScorer
from conformance.metrics.hash_equal import hash_equal
from conformance.metrics.latents_norm_error import norm_ratio
from conformance.metrics.registry import Kind
from conformance.results import FrameResult, LatentResult

Item = tuple[str, tuple[Any, ...]]  # where it is, and the arguments of a metric's function
STRUCTURE: dict[Kind, Kind] = {"motion": "frame", "stereo": "audio"}  # the kind whose structure must agree, if another
THREADS_FROM = 2**21  # values in all frames; below it threads cost more than they save
MAX_THREADS = 8


@dataclass(frozen=True)
class Measured:
    """Values of one metric and where each was taken (``output 0 frame 3``), or a note why there are none."""

    values: tuple[float, ...]
    places: tuple[str, ...]
    note: str = ""

    @property
    def mean(self) -> float | None:
        with np.errstate(invalid="ignore"):
            return float(np.mean(self.values)) if self.values else None


@dataclass(frozen=True)
class Measurements:
    metrics: dict[str, Measured]
    latents: dict[str, LatentResult]
    frames: tuple[FrameResult, ...]


def mismatches(candidate: Sample, reference: Sample) -> dict[Kind, str]:
    """Differences of structure by kind, each a sentence that names both sides. Nothing is measured across one."""
    found: dict[Kind, str] = {}
    mine, theirs = _frames_text(candidate.frames), _frames_text(reference.frames)
    if mine != theirs:
        found["frame"] = f"frames are {mine}, the reference's are {theirs}"
    elif candidate.frames.dtype != np.uint8 or candidate.frames.ndim != 5 or candidate.frames.shape[-1] != 3:
        found["frame"] = f"frames are {mine}, the reference's are {theirs}; expected uint8 [B,F,H,W,3]"
    latents, reference_latents = _latents_text(candidate), _latents_text(reference)
    if latents != reference_latents:
        found["latent"] = f"latents are {latents}, the reference's are {reference_latents}"
    audio, reference_audio = _audio_text(candidate), _audio_text(reference)
    if audio != reference_audio:
        found["audio"] = f"audio is {audio}, the reference's is {reference_audio}"
    elif candidate.audio is not None and (candidate.audio.ndim != 3 or not candidate.audio_rate):
        found["audio"] = f"audio is {audio}, the reference's is {reference_audio}; expected [B, C, N] at its rate"
    return found


def _frames_text(frames: np.ndarray) -> str:
    return f"{frames.dtype} {list(frames.shape)}"


def _latents_text(sample: Sample) -> str:
    return ", ".join(f"{name} {list(value.shape)}" for name, value in sorted(sample.latents.items())) or "absent"


def _audio_text(sample: Sample) -> str:
    """The length is left out: it is a metric (``audio.duration_s``)."""
    if sample.audio is None:
        return "absent"
    shape = ", ".join(str(size) for size in sample.audio.shape[:-1])
    return f"{sample.audio.dtype} [{shape}, N] at {sample.audio_rate} Hz"


def measure(
    candidate: Sample,
    reference: Sample,
    mismatched: Mapping[Kind, str],
    clip: ClipScorer | None,
    given_frames: Container[int],
) -> Measurements:
    """All registered metrics of the kinds that a side has. ``mismatched`` comes from :func:`mismatches`.

    given_frames: indices of frames that are an input of the case; they are left out.
    """
    moves = candidate.frames.ndim > 1 and candidate.frames.shape[1] > 1
    channels = None if candidate.audio is None else candidate.audio.shape[1:2]
    present: dict[Kind, bool] = {
        "frame": True,
        "motion": moves,
        "latent": bool(candidate.latents or reference.latents),
        "audio": candidate.audio is not None or reference.audio is not None,
        "stereo": channels is not None and channels > (1,),
    }
    items: dict[Kind, Iterator[Item]] = {
        "frame": _frame_items(candidate, reference, clip, given_frames),
        "motion": _motion_items(candidate, reference, given_frames),
        "latent": _latent_items(candidate, reference),
        "audio": _audio_items(candidate, reference),
        "stereo": _stereo_items(candidate, reference),
    }
    large = candidate.frames.size > THREADS_FROM
    metrics: dict[str, Measured] = {}
    for kind in (kind for kind in items if present[kind]):
        why = mismatched.get(STRUCTURE.get(kind, kind))
        if why:
            metrics |= {name: Measured((), (), why) for name in _names(kind)}
        else:
            metrics |= _apply(_names(kind), items[kind], threads=large and kind in ("frame", "motion"))
    latents: dict[str, LatentResult] = {}
    if "latent" not in mismatched:
        latents = {name: _latent_result(candidate, reference, name) for name in candidate.latents}
    frames: tuple[FrameResult, ...] = ()
    if "frame" not in mismatched:
        frames = _frame_results(_judged(candidate, given_frames), metrics)
    return Measurements(metrics, latents, frames)


def _names(kind: Kind) -> list[str]:
    return [name for name, metric in REGISTRY.items() if metric.kind == kind]


def _apply(names: list[str], items: Iterator[Item], *, threads: bool) -> dict[str, Measured]:
    """Item by item, so that what the metrics of one frame share is freed with it. threads: several at a time."""
    measured = partial(_measured, names)
    if threads:
        with ThreadPoolExecutor(min(MAX_THREADS, len(os.sched_getaffinity(0)))) as pool:
            found = list(pool.map(measured, items))
    else:
        found = [measured(item) for item in items]
    if not found:
        return {name: Measured((), (), "nothing to measure") for name in names}
    places = tuple(place for place, _ in found)
    return {name: _collected([values[name] for _, values in found], places) for name in names}


def _measured(names: list[str], item: Item) -> tuple[str, dict[str, float | str]]:
    """Every metric of one item: a value, or a note why there is none."""
    place, arguments = item
    values: dict[str, float | str] = {}
    with np.errstate(invalid="ignore", over="ignore"):
        for name in names:
            try:
                values[name] = REGISTRY[name].function(*arguments)
            except InputError as error:
                values[name] = str(error)
    return place, values


def _collected(values: list[float | str], places: tuple[str, ...]) -> Measured:
    """One metric of all items; one that is not defined for an item is not measured at all."""
    numbers = tuple(value for value in values if not isinstance(value, str))
    if len(numbers) == len(values):
        return Measured(numbers, places)
    return Measured((), (), next(value for value in reversed(values) if isinstance(value, str)))


def _judged(sample: Sample, given_frames: Container[int]) -> list[tuple[int, int]]:
    return [(b, f) for b, f in np.ndindex(sample.frames.shape[:2]) if f not in given_frames]


def _place(b: int, f: int) -> str:
    return f"output {b} frame {f}"


def _frame_items(
    candidate: Sample, reference: Sample, clip: ClipScorer | None, given_frames: Container[int]
) -> Iterator[Item]:
    if candidate.frames.size:
        for b, f in _judged(candidate, given_frames):
            yield _place(b, f), (FramePair(candidate.frames[b, f], reference.frames[b, f], clip),)


def _motion_items(candidate: Sample, reference: Sample, given_frames: Container[int]) -> Iterator[Item]:
    """Every judged frame that has one before it; that one may be a given frame."""
    if candidate.frames.size:
        for b, f in _judged(candidate, given_frames):
            if f:
                now, before = (FramePair(candidate.frames[b, i], reference.frames[b, i]) for i in (f, f - 1))
                yield _place(b, f), (MotionPair(now, before),)


def _latent_items(candidate: Sample, reference: Sample) -> Iterator[Item]:
    """Each stream of each output by itself: one damaged output is not averaged away."""
    outputs = len(candidate.frames)
    for name, mine in candidate.latents.items():
        theirs = reference.latents[name]
        if mine.ndim > 1 and len(mine) == outputs:
            for b in range(outputs):
                yield f"latents {name!r} output {b}", (mine[b], theirs[b])
        else:
            yield f"latents {name!r}", (mine, theirs)


def _audio_items(candidate: Sample, reference: Sample) -> Iterator[Item]:
    mine, theirs = candidate.audio, reference.audio
    if mine is None or theirs is None or candidate.audio_rate is None:
        return
    for index in np.ndindex(mine.shape[:-1]):
        place = " ".join(f"{axis} {i}" for axis, i in zip(("output", "channel"), index, strict=True))
        yield place, (AudioPair(mine[index], theirs[index], candidate.audio_rate),)


def _stereo_items(candidate: Sample, reference: Sample) -> Iterator[Item]:
    mine, theirs = candidate.audio, reference.audio
    if mine is None or theirs is None or candidate.audio_rate is None:
        return
    for b in range(len(mine)):
        yield f"output {b}", (StereoPair(mine[b], theirs[b], candidate.audio_rate),)


def _latent_result(candidate: Sample, reference: Sample, name: str) -> LatentResult:
    mine, theirs = candidate.latents[name], reference.latents[name]
    return LatentResult(
        rel_l2=REGISTRY["latents.rel_l2"].function(mine, theirs),
        max_abs=REGISTRY["latents.max_abs"].function(mine, theirs),
        norm_ratio=norm_ratio(mine, theirs),
        cosine=REGISTRY["latents.cosine"].function(mine, theirs),
        hash_equal=hash_equal(mine, theirs),
    )


def _frame_results(judged: list[tuple[int, int]], metrics: Mapping[str, Measured]) -> tuple[FrameResult, ...]:
    by_place = {
        name: dict(zip(m.places, m.values, strict=True))
        for name, m in metrics.items()
        if REGISTRY[name].kind in ("frame", "motion")
    }
    return tuple(
        FrameResult(
            batch=b,
            index=f,
            metrics={name: values[_place(b, f)] for name, values in by_place.items() if _place(b, f) in values},
        )
        for b, f in judged
    )
