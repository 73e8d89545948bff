"""Gates: a comparison becomes a verdict about a case.

*reference*: the engine against diffusers, live or stored. *self*: the engine against its own accepted output.
*parallel*: the engine on several ranks against itself on one device (``conformance.parallel_gate``).
All first shake hands: a number is only as good as the equality of what went in.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from conformance import parallel_gate
from conformance.case import Case
from conformance.compare import Comparison, compare, handshake
from conformance.generator import Sample
from conformance.metrics.clip import ClipScorer
from conformance.overrides import origin
from conformance.results import CaseResult
from conformance.verdicts import Verdict
from thresholds import Thresholds


def judge(
    case: Case,
    gate: str,
    candidate: Sample,
    reference: Sample,
    *,
    thresholds: Thresholds,
    clip: ClipScorer | None,
) -> CaseResult:
    """Compare two samples of a case under its limits. Different inputs are INCOMPARABLE, whatever the distance."""
    if gate == "parallel":
        result, taps = parallel_gate.judge(case, candidate, reference, clip=clip)
        return _result(case, gate, candidate, reference, result, taps=taps)
    entry = thresholds.for_case(case.id)
    result = compare(
        candidate, reference, limits=entry.limits if entry else None, clip=clip, given_frames=case.request.given_frames
    )
    verdict, reason = result.verdict, result.reason
    if verdict == Verdict.CALIBRATION_NEEDED and entry is None:
        reason = _without_limits(case) or reason
    different = handshake(candidate.resolved, reference.resolved)
    if different:
        verdict, reason = Verdict.INCOMPARABLE, different
    result = replace(result, verdict=verdict, reason=reason)
    return _result(case, gate, candidate, reference, result, evidence=entry.evidence if entry else {})


def _result(case: Case, gate: str, candidate: Sample, reference: Sample, result: Comparison, **more: Any) -> CaseResult:
    return CaseResult(
        id=case.id,
        gate=gate,
        verdict=result.verdict,
        reason=result.reason,
        axes=case.axes,
        metrics=result.metrics,
        latents=result.latents,
        frames=result.frames,
        steps=result.steps,
        divergence=result.divergence,
        case=case.as_dict(),
        resolved={"candidate": candidate.resolved, "reference": reference.resolved},
        ledger={"candidate": candidate.ledger, "reference": reference.ledger},
        shared=candidate.shared,
        **more,
    )


def _without_limits(case: Case) -> str:
    """Why a case that departs from its matrix has no limits; nothing for any other."""
    picked, departures = origin(case)
    if not departures:
        return ""
    return (
        f"not equal bit for bit, and no limits were measured with {' '.join(departures)}"
        f" (those of {picked} do not count for it)"
    )
