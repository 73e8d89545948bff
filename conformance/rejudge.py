"""Saved results under other thresholds: no engine runs, no picture is read, only saved worst values are judged again.

A verdict that does not rest on limits stays: PASS_EXACT, everything unjudged, a FAIL of structure or sanity, the
parallel gate (its bounds are code, not thresholds), and ``conformance compare``, whose limits stand in its command.
The gap ledger's finding is the saved one: looser limits turn no new or grown gap green.
"""

from __future__ import annotations

from dataclasses import replace

from conformance.compare import absent, judge_limits
from conformance.gates import limits_for
from conformance.metrics import REGISTRY
from conformance.metrics.measure import Measured
from conformance.results import CaseResult, MetricResult, Results
from conformance.verdicts import Verdict
from thresholds import Thresholds
from thresholds.waivers import today

_ON_LIMITS = (Verdict.PASS, Verdict.CALIBRATION_NEEDED)


def rejudge(results: Results, thresholds: Thresholds) -> Results:
    """``results`` with the verdicts, limits and evidence that ``thresholds`` give them. Pure but for the day.

    Nothing passes by an expired waiver. Limits of another device than the one a case ran on do not count for it.
    ``run["rejudged"]`` is the digest of the thresholds.
    """
    cases = tuple(_rejudged(case, thresholds) for case in results.cases)
    return Results(run={**results.run, "rejudged": thresholds.digest}, cases=cases)


def _rejudged(case: CaseResult, thresholds: Thresholds) -> CaseResult:
    if case.gate == "parallel" or case.id.startswith("compare/") or not case.metrics:
        return case
    limits, evidence, missing = _limits(case, thresholds)
    entry = thresholds.for_case(case.id)
    trouble = entry.trouble(today()) if entry and limits else ""
    if not trouble and limits == {name: m.limit for name, m in case.metrics.items() if m.limit is not None}:
        return replace(case, evidence=evidence)
    metrics = _metrics(case.metrics, limits)
    changed = replace(case, metrics=metrics, evidence=evidence)
    if not by_limits(case):
        return changed
    verdict, reason = Verdict.CALIBRATION_NEEDED, missing
    if limits:
        saved = {name: _measured(case, name, metric) for name, metric in metrics.items()}
        verdict, reason = judge_limits(saved, limits)
        if verdict is Verdict.PASS and trouble:
            verdict, reason = Verdict.CALIBRATION_NEEDED, trouble
    return _with_gap(replace(changed, verdict=verdict, reason=reason))


def _with_gap(case: CaseResult) -> CaseResult:
    """The gap ledger's say, as saved: a red gap stays red, a known one is WAIVED where there are no limits."""
    if case.gap.get("state") in ("new", "grown") or _expired(case):
        return case if case.verdict is Verdict.FAIL else replace(case, verdict=Verdict.FAIL, reason=_said(case))
    if case.gap.get("state") not in ("known", "shrunk"):
        return case
    verdict = Verdict.WAIVED if case.verdict is Verdict.CALIBRATION_NEEDED else case.verdict
    return replace(case, verdict=verdict, reason=f"{case.reason}; {_said(case)}")


def _said(case: CaseResult) -> str:
    return str(case.gap.get("sentence", ""))


def _expired(case: CaseResult) -> bool:
    """Whether a known gap was red when it was judged: that is the ledger's own wording."""
    return _said(case).endswith("that day is over")


def by_limits(case: CaseResult) -> bool:
    """Whether the case's verdict rests on its limits, so that other limits can change it."""
    if case.verdict is not Verdict.FAIL:
        return case.verdict in _ON_LIMITS or (case.verdict is Verdict.WAIVED and bool(case.gap))
    if case.gap and case.reason == _said(case):
        return True
    outside = (name for name, metric in case.metrics.items() if metric.ok is False)
    return any(case.reason.startswith(f"{name} is ") for name in outside)


def _limits(case: CaseResult, thresholds: Thresholds) -> tuple[dict[str, float], dict[str, object], str]:
    """Limits and their evidence, or none and why."""
    entry = thresholds.for_case(case.id)
    missing = "not equal bit for bit, and the thresholds have no limits for this case"
    if entry is None:
        return {}, {}, missing
    device, measured = _device(case), entry.evidence["cohort"]["device"]
    if device not in ("", measured):
        return {}, {}, f"{missing} on {device}: they are of {measured}"
    return limits_for(case.gate, entry, {"device": {"name": device}}) or {}, entry.evidence, missing


def _device(case: CaseResult) -> str:
    """The device of the candidate's ledger; empty where it does not say."""
    side = case.ledger.get("candidate")
    device = side.get("device") if isinstance(side, dict) else None
    name = device.get("name") if isinstance(device, dict) else device
    return name if isinstance(name, str) else ""


def _metrics(saved: dict[str, MetricResult], limits: dict[str, float]) -> dict[str, MetricResult]:
    unknown = {
        name: MetricResult(value=None, worst=None, note=absent(name) if name in REGISTRY else "no such metric")
        for name in limits
        if name not in saved
    }
    return {name: _limited(name, metric, limits.get(name)) for name, metric in {**saved, **unknown}.items()}


def _limited(name: str, metric: MetricResult, limit: float | None) -> MetricResult:
    if limit is None or metric.worst is None or name not in REGISTRY:
        return replace(metric, limit=limit, ok=None)
    return replace(metric, limit=limit, ok=REGISTRY[name].holds(metric.worst, limit))


def _measured(case: CaseResult, name: str, metric: MetricResult) -> Measured:
    if metric.worst is None:
        return Measured((), (), metric.note)
    frames = (frame for frame in case.frames if frame.metrics.get(name) == metric.worst)
    place = next((f"output {frame.batch} frame {frame.index}" for frame in frames), "the worst")
    return Measured((metric.worst,), (place,))
