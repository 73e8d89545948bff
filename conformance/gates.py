"""Gates: a comparison becomes a verdict about a case.

*reference*: the engine against diffusers or the official packages, live or stored, within the case's limits.
*self*: the engine against its own accepted output: to the bit on a CPU, within the noise floor elsewhere.
*parallel*: the engine on several ranks against itself on one device (``conformance.parallel_gate``).
All first shake hands: a number is only as good as the equality of what went in. The first two consult the gap ledger
(``conformance.ledger_rules``); bounds by layout are the ledger of the third.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from conformance import parallel_gate
from conformance.case import Case
from conformance.compare import Comparison, compare, handshake
from conformance.generator import Sample, output_digests
from conformance.ledger import SIZES, Cohort, Ledger
from conformance.ledger_rules import consult
from conformance.metrics.clip import ClipScorer
from conformance.overrides import origin
from conformance.results import CaseResult
from conformance.verdicts import Verdict
from thresholds import Entry, Thresholds
from thresholds.waivers import today

BITS = "not equal bit for bit, and on a CPU an engine repeats its accepted output to the bit"


def judge(
    case: Case,
    gate: str,
    candidate: Sample,
    reference: Sample,
    *,
    thresholds: Thresholds,
    clip: ClipScorer | None,
    ledger: Ledger | None = None,
) -> CaseResult:
    """Compare two samples of a case under its limits. Different inputs are INCOMPARABLE, whatever the distance.

    ledger: None where the gaps of the shipped engine say nothing about this one; then limits alone judge.
    """
    if gate == "parallel":
        result, taps = parallel_gate.judge(case, candidate, reference, clip=clip)
        return _result(case, gate, candidate, reference, result, taps=taps)
    entry = thresholds.for_case(case.id)
    limits = limits_for(gate, entry, candidate.ledger)
    result = compare(candidate, reference, limits=limits, clip=clip, given_frames=case.request.given_frames)
    verdict, reason = result.verdict, result.reason
    if verdict == Verdict.CALIBRATION_NEEDED and entry is None:
        reason = _without_limits(case) or reason
    if verdict in (Verdict.PASS, Verdict.CALIBRATION_NEEDED) and entry and (trouble := entry.trouble(today())):
        verdict, reason = Verdict.CALIBRATION_NEEDED, trouble
    different = handshake(candidate.resolved, reference.resolved)
    if different:
        verdict, reason = Verdict.INCOMPARABLE, different
    result = replace(result, verdict=verdict, reason=reason)
    judged = _result(case, gate, candidate, reference, result, evidence=entry.evidence if entry else {})
    return _with_gap(case, judged, candidate.ledger, entry, ledger)


def limits_for(gate: str, entry: Entry | None, environment: Mapping[str, Any]) -> dict[str, float] | None:
    """The limits of a gate: the self gate has the noise floors, and on a CPU, where runs repeat bit for bit, none."""
    if gate != "self":
        return entry.limits if entry else None
    if entry is None or _on_cpu(environment):
        return None  # what differs by a bit differs
    return {bound.metric: bound.noise_floor for bound in entry.bounds}


def _with_gap(
    case: Case, result: CaseResult, environment: Mapping[str, Any], entry: Entry | None, ledger: Ledger | None
) -> CaseResult:
    """The result with the ledger's say. Departures from the matrix are tried out, not accepted: it has none on them."""
    if ledger is not None and not origin(case)[1]:
        floors = {bound.metric: bound.noise_floor for bound in entry.bounds} if entry else {}
        found = consult(
            result,
            ledger,
            Cohort.of(environment),
            {name: floor for name, floor in floors.items() if name in SIZES},
            today(),
        )
        result = replace(result, verdict=found.verdict, reason=found.reason, gap=found.gap)
    if result.gate == "self" and result.verdict == Verdict.CALIBRATION_NEEDED and _on_cpu(environment):
        return replace(result, verdict=Verdict.FAIL, reason=BITS)
    return result


def _on_cpu(environment: Mapping[str, Any]) -> bool:
    return environment.get("device", {}).get("name") == "cpu"


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
        outputs=output_digests(candidate),
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
