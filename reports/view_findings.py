"""View models of what is known about a difference: the gap ledger, the oracle, the latents over the steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from conformance.jsonio import number as json_number
from conformance.results import CaseResult
from reports import plots
from reports.labels import PER_STEP, metric_label
from reports.text import number, one_line

_GAPS = {  # state -> tone of the style sheet, sentence
    "exact": ("exact", "exact against its reference"),
    "known": ("waived", "a known gap, as recorded in the ledger"),
    "new": ("bad", "a new gap that the ledger does not have"),
    "grown": ("bad", "larger than the ledger records"),
    "shrunk": ("good", "smaller than the ledger records: accept it, so that it cannot grow back"),
}
_FINDINGS = {
    "REGRESSION": ("bad", "The candidate is further from the truth than the reference."),
    "BENIGN_REROUND": ("good", "The two round differently and are equally close to the truth."),
    "REFERENCE_WORSE": ("good", "The candidate is closer to the truth than the reference."),
    "NOISE": ("good", "The difference is within the noise."),
}


@dataclass(frozen=True)
class Gap:
    """``short`` is the cell of the summary table, ``words`` the sentence of the card."""

    tone: str
    short: str
    words: str


@dataclass(frozen=True)
class Oracle:
    tone: str
    finding: str
    sentence: str
    numbers: tuple[tuple[str, str], ...]


def _number(value: Any) -> str:
    try:
        return number(json_number(value))
    except ValueError:
        return "–" if value is None else one_line(value)


def gap_view(case: CaseResult) -> Gap | None:
    """The case's entry in the gap ledger, or None when it has none."""
    if not case.gap:
        return None
    state = one_line(case.gap.get("state", ""))
    tone, words = _GAPS.get(state, ("none", state))
    recorded, measured = _number(case.gap.get("recorded")), _number(case.gap.get("measured"))
    metric = metric_label(one_line(case.gap.get("metric", "")))
    sizes = "" if state == "exact" else f": {metric} {measured}, recorded {recorded}"
    return Gap(tone, state, f"{words}{sizes}")


def oracle_view(case: CaseResult) -> Oracle | None:
    """Who is closer to the truth, or None when nobody asked."""
    if not case.oracle:
        return None
    finding = one_line(case.oracle.get("finding", ""))
    tone, meaning = _FINDINGS.get(finding, ("none", ""))
    names = {
        "candidate_error": "candidate's error",
        "reference_error": "reference's error",
        "rms_ratio": "ratio of RMS",
        "bias": "bias",
    }
    return Oracle(
        tone=tone,
        finding=finding.replace("_", " ").capitalize(),
        sentence=one_line(case.oracle.get("sentence", "")) or meaning,
        numbers=tuple((words, _number(case.oracle[name])) for name, words in names.items() if name in case.oracle),
    )


def step_view(case: CaseResult) -> Markup:
    """Latents over the steps against the limit, the noise that legal changes reach and the smallest guarded defect."""
    metric = case.metrics.get(PER_STEP)
    limits = case.evidence.get("limits")
    evidence = limits.get(PER_STEP) if isinstance(limits, dict) else None
    evidence = evidence if isinstance(evidence, dict) else {}
    defect = evidence.get("smallest_defect")
    defect = defect if isinstance(defect, dict) else {}
    found = (
        ("floor", evidence.get("noise_floor"), "noise floor"),
        ("limit", metric.limit if metric else None, "limit"),
        ("defect", defect.get("value"), f"smallest defect ({one_line(defect.get('name', ''))})"),
    )
    levels = []
    for kind, value, words in found:
        try:
            levels.append(plots.Level(kind, json_number(value), words))
        except ValueError:
            continue
    return plots.step_plot(case.steps, levels)
