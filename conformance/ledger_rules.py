"""What the gap ledger says of a case that was judged, and how a ledger is updated. Pure.

======== ====================================================== ========================================================
state    when                                                   verdict
======== ====================================================== ========================================================
exact    bits are equal, no entry                               PASS_EXACT
new      bits differ, no entry                                  FAIL
grown    a size exceeds its record                              FAIL
known    every size is its record                               the limits'; WAIVED without limits; FAIL once expired
shrunk   no size exceeds its record, one falls short of it      the same; PASS_EXACT when bits are equal by now
none     the ledger does not speak for this run                 the limits'
======== ====================================================== ========================================================

A record is met within the rounding of the metrics where runs repeat bit for bit, elsewhere within the metric's noise
floor. The ledger never makes a violated limit green.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from conformance.acceptance import Acceptance
from conformance.ledger import SIZES, Cohort, Gap, Ledger
from conformance.results import CaseResult, MetricResult
from conformance.verdicts import Verdict

# A metric sums n float64 terms: relative 2**-53 each, at most 1e-9 for the eight million values of a large clip.
ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class Finding:
    """gap: for ``CaseResult.gap``. verdict, reason: those of the case, with the ledger's say."""

    verdict: Verdict
    reason: str
    gap: dict[str, Any]


def sizes(metrics: Mapping[str, MetricResult]) -> dict[str, float]:
    """The distances of a result that a gap is measured by."""
    return {name: worst for name in SIZES if name in metrics and (worst := metrics[name].worst) is not None}


def consult(result: CaseResult, ledger: Ledger, cohort: Cohort, floors: Mapping[str, float], today: date) -> Finding:
    """The ledger's say about a case that the limits have judged.

    cohort: of the run. floors: noise floor by metric, of ``SIZES``.
    A result whose verdict is not a matter of distance (structure, inputs, non-finite values) is returned as it is.
    """
    measured = sizes(result.metrics)
    exact = result.verdict == Verdict.PASS_EXACT
    by_distance = result.verdict in (Verdict.PASS, Verdict.CALIBRATION_NEEDED, Verdict.FAIL) and measured
    if not (exact or by_distance):
        return Finding(verdict=result.verdict, reason=result.reason, gap={})
    if away := ledger.cohort.unlike(cohort):
        note = f"the gap ledger is of {', '.join(away)}"
        return Finding(verdict=result.verdict, reason=result.reason, gap=_said(None, measured, "none", note))
    gap = ledger.gaps.get((result.id, result.gate))
    if exact:
        note = "" if gap is None else "exact by now: the entry can go"
        return Finding(
            verdict=result.verdict,
            reason=result.reason,
            gap=_said(gap, measured, "exact" if gap is None else "shrunk", note),
        )
    if gap is None:
        size = f"{SIZES[0]} {_number(measured.get(SIZES[0]))}"
        note = f"not equal bit for bit ({size}), and the gap ledger has no entry; {_how(result)}"
        return _red(result, _said(None, measured, "new", note))
    slack = {} if ledger.cohort.repeats(cohort) else floors
    grown, shrunk = _moved(gap.sizes, measured, slack)
    if grown:
        text = ", ".join(
            f"{name} was {_number(gap.sizes.get(name))}, is {_number(measured.get(name))}" for name in grown
        )
        return _red(result, _said(gap, measured, "grown", f"the gap grew: {text} ({gap.accepted})", grown[0]))
    state = "shrunk" if shrunk else "known"
    if gap.accepted.expired(today):
        return _red(result, _said(gap, measured, state, f"the gap was {gap.accepted}; that day is over"))
    verdict = Verdict.WAIVED if result.verdict == Verdict.CALIBRATION_NEEDED else result.verdict
    said = _said(gap, measured, state, f"a known gap{', smaller now' if shrunk else ''}, {gap.accepted}", *shrunk[:1])
    return Finding(verdict=verdict, reason=f"{result.reason}; {said['sentence']}", gap=said)


def proposed(results: Iterable[CaseResult], ledger: Ledger) -> Ledger:
    """The ledger with what shrank at its new size, and without what is exact; the same one when nothing did."""
    gaps = dict(ledger.gaps)
    for result in results:
        key = (result.id, result.gate)
        if result.gap.get("state") == "shrunk" and key in gaps:
            if result.verdict == Verdict.PASS_EXACT:
                del gaps[key]
            else:
                gaps[key] = replace(gaps[key], sizes=sizes(result.metrics))
    return ledger if gaps == ledger.gaps else Ledger(ledger.cohort, gaps)


def accepted(result: CaseResult, ledger: Ledger, acceptance: Acceptance) -> Ledger:
    """The ledger with the gap of a result that is not exact, as accepted."""
    gap = Gap(case=result.id, gate=result.gate, sizes=sizes(result.metrics), accepted=acceptance)
    return Ledger(ledger.cohort, {**ledger.gaps, (gap.case, gap.gate): gap})


def _moved(
    recorded: Mapping[str, float], measured: Mapping[str, float], slack: Mapping[str, float]
) -> tuple[list[str], list[str]]:
    """Metrics beyond and short of their records, the farthest first. One without a record is beyond it."""
    grown, shrunk = {}, []
    for name in measured.keys() | recorded.keys():
        now, then = measured.get(name, math.nan), recorded.get(name, 0.0)
        allowed = 0.0 if math.isinf(then) else slack.get(name, 0.0) + ROUNDING * then
        if not now <= then + allowed:  # NaN too
            grown[name] = math.inf if not then or math.isnan(now) else now / then
        elif now < then - allowed:
            shrunk.append(name)
    order = {name: index for index, name in enumerate(SIZES)}
    return (
        sorted((name for name in grown), key=lambda name: (-grown[name], order[name])),
        sorted(shrunk, key=lambda name: order[name]),
    )


def _said(
    gap: Gap | None, measured: Mapping[str, float], state: str, sentence: str, metric: str = SIZES[0]
) -> dict[str, Any]:
    return {
        "state": state,
        "metric": metric,
        "recorded": None if gap is None else gap.sizes.get(metric),
        "measured": measured.get(metric),
        "sentence": sentence,
    }


def _red(result: CaseResult, gap: dict[str, Any]) -> Finding:
    reason = result.reason if result.verdict == Verdict.FAIL else gap["sentence"]
    return Finding(verdict=Verdict.FAIL, reason=reason, gap=gap)


def _how(result: CaseResult) -> str:
    what = "self" if result.gate == "self" else "gap"
    return f"if it is right: conformance gt accept OUT '{result.id}' --as {what} --reason ... --owner ... --expires ..."


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.6g}"
