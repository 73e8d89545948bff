"""The comparator: two samples and limits in, a verdict and every number behind it out. Pure: no files, no ranks.

Judged in this order; the first that applies is the verdict:

1. the structures differ (frames, outputs, latents, audio)                           FAIL
2. the candidate is not finite where the reference is                                FAIL
3. a frame of the candidate is one flat colour where the reference's is not          FAIL
4. the reference is not finite, has a flat frame, or has no frames                   INCOMPARABLE
5. frames, latents and audio are equal bit for bit                                   PASS_EXACT
6. there are no limits                                                               CALIBRATION_NEEDED
7. a limit is violated                                                               FAIL
8. a limit is on a metric that was not measured or that nobody registered            CALIBRATION_NEEDED
9. otherwise                                                                         PASS

Limits are inclusive and hold for the worst frame, channel or latent stream of all outputs.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from conformance.divergence import first_divergence, latent_steps
from conformance.generator import Sample
from conformance.handshake import handshake
from conformance.metrics import REGISTRY
from conformance.metrics.clip import ClipScorer
from conformance.metrics.measure import Measured, Measurements, measure, mismatches
from conformance.metrics.registry import Kind
from conformance.results import Divergence, FrameResult, LatentResult, MetricResult, StepResult
from conformance.verdicts import Verdict

__all__ = ["Comparison", "compare", "handshake"]
LACKING: dict[Kind, str] = {
    "frame": "frames",
    "motion": "a second frame",
    "latent": "latents",
    "audio": "audio",
    "stereo": "a second channel",
}


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A verdict, the reason for it in one line, and the numbers (see ``conformance.results``)."""

    verdict: Verdict
    reason: str
    metrics: dict[str, MetricResult]
    latents: dict[str, LatentResult]
    frames: tuple[FrameResult, ...]
    steps: tuple[StepResult, ...]
    divergence: Divergence | None


def compare(
    candidate: Sample,
    reference: Sample,
    *,
    limits: Mapping[str, float] | None,
    clip: ClipScorer | None = None,
    given_frames: Container[int] = (),
    sound_alone: bool = False,
) -> Comparison:
    """Judge ``candidate`` by its distance from ``reference``.

    limits: metric name -> bound (see ``REGISTRY`` for direction and unit). clip: None leaves CLIP unmeasured.
    given_frames: indices of frames that are an input of the case, such as a conditioning image: not measured.
    sound_alone: the samples are meant to have no frames.
    Never raises for what a sample contains; numbers are there for failing samples too, where shapes permit.
    """
    limits = limits or {}
    mismatched = mismatches(candidate, reference)
    measured = measure(candidate, reference, mismatched, clip, given_frames)
    verdict, reason = _judge(candidate, reference, mismatched, measured, limits, sound_alone)
    return Comparison(
        verdict=verdict,
        reason=reason,
        metrics=_metric_results(measured.metrics, limits),
        latents=measured.latents,
        frames=measured.frames,
        steps=latent_steps(candidate, reference),
        divergence=first_divergence(candidate, reference),
    )


def _judge(
    candidate: Sample,
    reference: Sample,
    mismatched: Mapping[Kind, str],
    measured: Measurements,
    limits: Mapping[str, float],
    sound_alone: bool,
) -> tuple[Verdict, str]:
    structure = [*mismatched.values(), *_unlimited_length(candidate, reference, mismatched, limits)]
    if structure:
        return Verdict.FAIL, "; ".join(structure)
    broken, reference_broken = _non_finite(candidate), _non_finite(reference)
    if new := [place for place in broken if place not in reference_broken]:
        return Verdict.FAIL, f"non-finite: {_some(new)}"
    flat, reference_flat = _constant_frames(candidate), _constant_frames(reference)
    if new := [place for place in flat if place not in reference_flat]:
        return Verdict.FAIL, f"constant colour, and not in the reference: {_some(new)}"
    if reference_broken:
        return Verdict.INCOMPARABLE, f"the reference is non-finite: {_some(reference_broken)}"
    if reference_flat:
        return Verdict.INCOMPARABLE, f"the reference has a constant colour: {_some(reference_flat)}"
    if not reference.frames.size and not sound_alone:
        return Verdict.INCOMPARABLE, f"the reference has no frames: {list(reference.frames.shape)}"
    if _exact(candidate, reference, measured.latents):
        return Verdict.PASS_EXACT, f"equal bit for bit: {_contents(candidate)}"
    if not limits:
        return Verdict.CALIBRATION_NEEDED, "not equal bit for bit, and there are no limits to judge by"
    return judge_limits(measured.metrics, limits)


def judge_limits(metrics: Mapping[str, Measured], limits: Mapping[str, float]) -> tuple[Verdict, str]:
    """Steps 7 to 9 of the order above, for a candidate that is comparable and not exact. Limits: at least one."""
    violated: list[tuple[float, str]] = []
    unmeasured: list[str] = []
    for name, limit in limits.items():
        if name not in REGISTRY:
            unmeasured.append(f"{name} (no such metric)")
        elif name not in metrics or not metrics[name].values:
            unmeasured.append(f"{name} ({metrics[name].note if name in metrics else absent(name)})")
        else:
            metric, item = REGISTRY[name], metrics[name]
            worst = metric.worst(item.values)
            value = item.values[worst]
            if not metric.holds(value, limit):
                text = f"{name} is {_short(value, limit)}, not {metric.sign} {_short(limit)} ({item.places[worst]})"
                violated.append((_excess(value, limit), text))
    violated.sort(key=lambda entry: entry[0], reverse=True)
    reasons = [text for _, text in violated]
    if unmeasured:
        reasons.append(f"limits on metrics that were not measured: {', '.join(unmeasured)}")
    if reasons:
        return Verdict.FAIL if violated else Verdict.CALIBRATION_NEEDED, "; ".join(reasons)
    return Verdict.PASS, f"within {len(limits)} limit{'s' if len(limits) > 1 else ''}"


def _metric_results(metrics: Mapping[str, Measured], limits: Mapping[str, float]) -> dict[str, MetricResult]:
    """Every metric of the kinds the samples have, and every metric a limit names."""
    results = {}
    for name in (*metrics, *(name for name in limits if name not in metrics)):
        item, limit = metrics.get(name), limits.get(name)
        if item is None or not item.values:
            note = item.note if item else absent(name) if name in REGISTRY else "no such metric"
            results[name] = MetricResult(value=None, worst=None, limit=limit, note=note)
        else:
            worst = item.values[REGISTRY[name].worst(item.values)]
            ok = None if limit is None else REGISTRY[name].holds(worst, limit)
            results[name] = MetricResult(value=item.mean, worst=worst, limit=limit, ok=ok)
    return results


def _unlimited_length(
    candidate: Sample, reference: Sample, mismatched: Mapping[Kind, str], limits: Mapping[str, float]
) -> Iterable[str]:
    """Waveforms of different lengths are a matter of structure, unless a limit says how much may differ."""
    mine, theirs = candidate.audio, reference.audio
    if mine is None or theirs is None or "audio" in mismatched or "audio.duration_s" in limits:
        return
    if mine.shape != theirs.shape:
        yield f"audio has {mine.shape[-1]} samples, the reference's {theirs.shape[-1]} (no limit on audio.duration_s)"


def _non_finite(sample: Sample) -> list[str]:
    """Places that hold a NaN or an infinity, in the order of the computation."""
    places = [f"tap {name}" for name, tap in sample.trace.items() if not tap.finite]
    places += [f"latents {name!r}" for name, value in sample.latents.items() if not torch.isfinite(value).all()]
    for name, array in (("frames_float", sample.frames_float), ("audio", sample.audio)):
        if array is not None:
            places += [f"{name} output {b}" for b, part in enumerate(array) if not np.isfinite(part).all()]
    return places


def _constant_frames(sample: Sample) -> list[str]:
    """Frames whose pixels all have one colour."""
    frames = sample.frames
    if not frames.size:
        return []
    return [f"output {b} frame {f}" for b, f in np.ndindex(frames.shape[:2]) if _constant(frames[b, f])]


def _constant(frame_HW3: np.ndarray) -> bool:
    return bool((frame_HW3[0] == frame_HW3[0, 0]).all()) and bool((frame_HW3 == frame_HW3[:1]).all())


def _exact(candidate: Sample, reference: Sample, latents: Mapping[str, LatentResult]) -> bool:
    if not all(stream.hash_equal for stream in latents.values()):
        return False
    if not all(np.array_equal(mine, theirs) for mine, theirs in _pairs_of_frames(candidate, reference)):
        return False
    if candidate.audio is None or reference.audio is None:
        return True  # both: the structures agree
    return candidate.audio.shape == reference.audio.shape and candidate.audio.tobytes() == reference.audio.tobytes()


def _pairs_of_frames(candidate: Sample, reference: Sample) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """One by one: a comparison of all at once would need a third copy of them."""
    for index in np.ndindex(candidate.frames.shape[:2]):
        yield candidate.frames[index], reference.frames[index]


def _contents(sample: Sample) -> str:
    outputs, frames = sample.frames.shape[:2]
    parts = [f"{outputs * frames} frames", *(f"latents {name!r}" for name in sample.latents)]
    return ", ".join([*parts, "audio"] if sample.audio is not None else parts)


def absent(name: str) -> str:
    """Why a registered metric has no values when neither side has what it measures."""
    return f"neither side has {LACKING[REGISTRY[name].kind]}"


def _excess(value: float, limit: float) -> float:
    """How far beyond its limit a value is, relative to the limit; NaN and a zero limit count as infinitely far."""
    if math.isnan(value) or limit == 0:
        return math.inf
    return abs(value - limit) / abs(limit)


def _short(value: float, beside: float | None = None) -> str:
    """Six digits, or as many as tell ``value`` from the number ``beside`` it; near 1 the distance from it."""
    text = _digits(value)
    return repr(float(value)) if beside is not None and text == _digits(beside) else text


def _digits(value: float) -> str:
    gap = abs(1 - value)
    return f"1 {'-' if value < 1 else '+'} {gap:.3g}" if 0 < gap < 1e-5 else f"{value:.6g}"


def _some(places: list[str], shown: int = 3) -> str:
    more = len(places) - shown
    return ", ".join(islice(places, shown)) + (f" and {more} more" if more > 0 else "")
