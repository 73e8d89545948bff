"""The parallel gate: a case on its layout against the same engine and case on one device.

Judged in this order; the first that applies is the verdict:

1. structure, non-finite values, constant frames: as in ``conformance.compare``        FAIL
2. another input, a tap that is missing, or of another shape or dtype                   FAIL
3. a part that exchanged nothing between ranks: its model is whole on each               FAIL
4. every tap and output equal bit for bit                                               PASS_EXACT
5. the layout only moves data, and a bit differs                                        FAIL
6. an input tap (noise, text, noise levels, positions) differs                          FAIL
   (layouts that cut the text encoder: its states and contexts are bounded, rule 7)
7. a bound of ``conformance.parallel_bounds`` is violated                               FAIL
8. otherwise                                                                            PASS
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import replace

import torch

from conformance.case import Case
from conformance.compare import Comparison, compare, handshake
from conformance.generator import Sample
from conformance.metrics import REGISTRY
from conformance.metrics.clip import ClipScorer
from conformance.parallel_bounds import Bounds, bounds
from conformance.results import MetricResult, TapResult
from conformance.ulps import histogram
from conformance.verdicts import Verdict

# Inputs of the first evaluation: no layout may change a bit of them.
_INPUT = re.compile(
    r"(stage\.1/)?(text|connector|noise|image|sigmas|positions|step\.000/latents)(/.*)?"
    r"|stage\.\d+/(noise|image|sigmas|positions)(/.*)?"
)
_STEP = re.compile(r"(?:(stage\.\d+)/)?step\.")
_TEXT = re.compile(r"(stage\.\d+/)?(text/(pos|neg)/embeds|connector/(pos|neg)/(video|audio))")
_ROLES = {
    "text": _TEXT,
    "first_forward": re.compile(r"(stage\.1/)?step\.000/[a-z]+/velocity/(video|audio)"),
    "final": re.compile(r"(stage\.\d+/)?latents/final/(video|audio)"),
    "decoded": re.compile(r"vae/frames|audio/waveform"),
}


def judge(
    case: Case, candidate: Sample, reference: Sample, *, clip: ClipScorer | None
) -> tuple[Comparison, tuple[TapResult, ...]]:
    """The comparison with the gate's verdict, and the taps behind it."""
    result = compare(candidate, reference, limits=None, clip=clip, given_frames=case.request.given_frames)
    allowed = bounds(case.layout, case.dtype, candidate.ledger.get("device", {}).get("kind", "cpu"))
    differing = _differing(candidate, reference)
    taps = _taps(candidate, reference, differing, allowed)
    verdict, reason = result.verdict, result.reason
    if verdict in (Verdict.PASS_EXACT, Verdict.CALIBRATION_NEEDED):
        verdict, reason = _judge(case, candidate, reference, result, differing, taps, allowed)
    metrics = {**_metrics(taps, allowed), **result.metrics}
    return replace(result, verdict=verdict, reason=reason, metrics=metrics), taps


def _judge(
    case: Case,
    candidate: Sample,
    reference: Sample,
    result: Comparison,
    differing: list[str],
    taps: tuple[TapResult, ...],
    allowed: Bounds,
) -> tuple[Verdict, str]:
    layout = case.layout.name
    agreed = candidate.resolved
    if case.layout.text and all(
        f"text/{sign}/embeds" in candidate.trace for sign in reference.resolved.get("embeds", ())
    ):
        agreed = agreed | {"embeds": reference.resolved["embeds"]}  # their taps are bounded instead
    if different := handshake(agreed, reference.resolved):
        return Verdict.FAIL, f"{layout} changes an input: {different}"
    if different := _structure(candidate, reference):
        return Verdict.FAIL, f"{layout} against one device: {different}"
    if idle := _idle(case, candidate):
        return (
            Verdict.FAIL,
            f"{layout}: {idle!r} exchanged nothing between ranks: its model is whole on each",
        )
    if not differing:
        if result.verdict == Verdict.PASS_EXACT:
            return Verdict.PASS_EXACT, f"{result.reason}, {len(reference.trace)} taps"
        return Verdict.FAIL, f"{layout}: every tap is equal bit for bit, and the outputs are not"
    first = f"first to differ is {_said(taps, 'first')}, {len(differing)} of {len(reference.trace)} taps do"
    if not allowed.final:
        return Verdict.FAIL, f"{layout} may not change a bit ({allowed.reason}); {first}"
    bounded = _TEXT if case.layout.text else re.compile("(?!)")
    if changed := [name for name in differing if _INPUT.fullmatch(name) and not bounded.fullmatch(name)]:
        return Verdict.FAIL, f"{layout} changes an input of the model: {changed[0]}; {first}"
    outside = [tap for tap in taps if tap.ok is False]
    if outside:
        worst = max(outside, key=lambda tap: _excess(tap))
        text = f"{worst.tap} is {_number(worst.rel_l2)} from one device (relative L2), not <= {_number(worst.limit)}"
        return Verdict.FAIL, f"{layout}: {text}; {first}"
    return Verdict.PASS, f"{layout} within its bounds; {first}; worst is {_said(taps, 'worst')}"


def _differing(candidate: Sample, reference: Sample) -> list[str]:
    """Common taps of other bits, in the candidate's order."""
    mine, theirs = candidate.trace, reference.trace
    return [name for name in mine if name in theirs and mine[name].sha256 != theirs[name].sha256]


def _structure(candidate: Sample, reference: Sample) -> str:
    mine, theirs = candidate.trace, reference.trace
    for side, names, others in (("one device", theirs, mine), ("the ranks", mine, theirs)):
        if only := [name for name in names if name not in others]:
            return f"tap {only[0]} is there on {side} alone ({len(only)} such taps)"
    for name in mine:
        kinds = [(tap.dtype, list(tap.shape)) for tap in (mine[name], theirs[name])]
        if kinds[0] != kinds[1]:
            return f"tap {name} is {kinds[0][0]} {kinds[0][1]}, on one device {kinds[1][0]} {kinds[1][1]}"
    return ""


def _idle(case: Case, candidate: Sample) -> str:
    """The first part of the computation that the layout spreads and in which no rank needed another."""
    counted = candidate.ledger.get("exchanges", {})
    stages = dict.fromkeys(found[1] or "steps" for name in candidate.trace if (found := _STEP.match(name)))
    parts = [*["text"] * case.layout.text, *stages]
    return next((part for part in parts if not counted.get(part)), "")


def _taps(candidate: Sample, reference: Sample, differing: list[str], allowed: Bounds) -> tuple[TapResult, ...]:
    """Judged taps in the candidate's order, then the first and the worst to differ."""

    def measured(name: str, role: str, limit: float | None) -> TapResult:
        mine, theirs = _pair(candidate, reference, name)
        if mine is None or theirs is None:
            return TapResult(
                tap=name, role=role, rel_l2=None, max_abs=None, limit=limit, ok=None if limit is None else False
            )
        rel_l2 = REGISTRY["latents.rel_l2"].function(mine, theirs)
        return TapResult(
            tap=name,
            role=role,
            rel_l2=rel_l2,
            max_abs=REGISTRY["latents.max_abs"].function(mine, theirs),
            limit=limit,
            ok=None if limit is None else rel_l2 <= limit,
            ulps=histogram(mine, theirs),
        )

    judged = []
    for name in _named(candidate):
        role = next((role for role, pattern in _ROLES.items() if pattern.fullmatch(name)), None)
        if role is not None:
            judged.append(measured(name, role, getattr(allowed, role)))
    named = [measured(differing[0], "first", None)] if differing else []
    sizes = {name: _rel_l2(candidate, reference, name) for name in differing}
    if sizes:
        named.append(measured(max(sizes, key=lambda name: sizes[name]), "worst", None))
    return (*judged, *named)


def _named(sample: Sample) -> Iterable[str]:
    """Taps, and the final latents where no tap has them: those every generator returns."""
    return dict.fromkeys([*sample.trace, *(f"latents/final/{name}" for name in sample.latents)])


def _pair(candidate: Sample, reference: Sample, name: str) -> tuple[torch.Tensor, torch.Tensor] | tuple[None, None]:
    """Both sides' tensors, where both have them in one shape and dtype; final latents are those that were returned."""
    stream = name.removeprefix("latents/final/")
    mine, theirs = (side.latents.get(stream, side.tensors.get(name)) for side in (candidate, reference))
    if mine is None or theirs is None or mine.shape != theirs.shape or mine.dtype != theirs.dtype:
        return None, None
    return mine, theirs


def _rel_l2(candidate: Sample, reference: Sample, name: str) -> float:
    """NaN and what cannot be measured count as the largest."""
    mine, theirs = _pair(candidate, reference, name)
    value = math.nan if mine is None else REGISTRY["latents.rel_l2"].function(mine, theirs)
    return math.inf if math.isnan(value) else value


def _metrics(taps: tuple[TapResult, ...], allowed: Bounds) -> dict[str, MetricResult]:
    found = {}
    for role in _ROLES:
        values = [math.nan if tap.rel_l2 is None else tap.rel_l2 for tap in taps if tap.role == role]
        if values:
            worst = max(values, key=lambda value: math.inf if math.isnan(value) else value)
            limit = getattr(allowed, role)
            mean = sum(values) / len(values)
            found[f"parallel.{role}"] = MetricResult(value=mean, worst=worst, limit=limit, ok=worst <= limit)
    return found


def _said(taps: tuple[TapResult, ...], role: str) -> str:
    tap = next(tap for tap in taps if tap.role == role)
    return f"{tap.tap} (relative L2 {_number(tap.rel_l2)})"


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.3g}"


def _excess(tap: TapResult) -> float:
    if tap.rel_l2 is None or math.isnan(tap.rel_l2) or not tap.limit:
        return math.inf
    return tap.rel_l2 / tap.limit
