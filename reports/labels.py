"""Words of the report: verdicts, metrics, exit codes, taps."""

from __future__ import annotations

import re
from dataclasses import dataclass

from conformance.metrics import REGISTRY
from conformance.results import CaseResult
from conformance.verdicts import Verdict
from reports.text import number, one_line, visible


@dataclass(frozen=True)
class Label:
    """How a verdict reads: short name, tone (a colour of the style sheet), one sentence."""

    short: str
    tone: str
    sentence: str


# Worst first: the order of tables, cards and counts.
VERDICTS: dict[Verdict, Label] = {
    Verdict.FAIL: Label("Fail", "bad", "A measured distance is outside its limit."),
    Verdict.INFRA_ERROR: Label("Infrastructure error", "broken", "The case did not run to its end."),
    Verdict.INCOMPARABLE: Label("Incomparable", "open", "The two sides did not run the same inputs."),
    Verdict.STALE_REFERENCE: Label("Stale reference", "open", "The stored reference was made from something else."),
    Verdict.NO_REFERENCE: Label("No reference", "open", "There is nothing to compare with."),
    Verdict.CALIBRATION_NEEDED: Label("Calibration needed", "open", "There is no limit with evidence behind it."),
    Verdict.UNSUPPORTED: Label("Unsupported", "open", "A side cannot produce this case."),
    Verdict.WAIVED: Label("Waived", "waived", "A known difference, accepted by its owner."),
    Verdict.PASS: Label("Pass", "good", "Every measured distance is within its limit."),
    Verdict.PASS_EXACT: Label("Pass, exact", "exact", "Bit-equal to the reference."),
}
SEVERITY = {verdict: place for place, verdict in enumerate(VERDICTS)}
PASSED = frozenset({Verdict.PASS, Verdict.PASS_EXACT})

EXIT_CODES = {
    0: "every case passed",
    1: "a numeric failure",
    2: "wrong usage",
    3: "infrastructure: a crash, a time limit or no memory",
    4: "something could not be judged",
}

_METRICS = {
    "clip": "CLIP cosine",
    "ssim": "SSIM",
    "psnr": "PSNR",
    "mean_abs_diff": "Mean abs diff",
    "tile_ssim": "SSIM, worst tile",
    "tile_mean_abs_diff": "Mean abs diff, worst tile",
    "p999_abs_diff": "99.9th percentile abs diff",
    "max_abs_diff": "Max abs diff",
    "grid_8": "Grid of period 8",
    "grid_16": "Grid of period 16",
    "grid_32": "Grid of period 32",
    "seam_step": "Seam, largest step",
    "blockiness": "Blockiness",
    "edge_energy_db": "Edge energy",
    "quiet_noise_db": "Noise of quiet tiles",
    "shift_px": "Shift",
    "colour_mean": "Colour, mean",
    "colour_spread": "Colour, spread",
    "temporal_diff": "Temporal difference",
    "motion_diff": "Amount of motion",
    "latents.rel_l2": "Relative L2",
    "latents.max_abs": "Max abs",
    "latents.norm_error": "Norm error",
    "latents.cosine": "Cosine",
    "latents.worst_channel": "Worst channel",
    "latents.worst_token": "Worst token",
    "latents.coarse_share": "Share held exactly by bf16",
    "parallel.first_forward": "First forward, relative L2",
    "parallel.final": "Final latents, relative L2",
    "parallel.decoded": "Decoded, relative L2",
    "audio.log_spectral_distance": "Log-spectral distance",
    "audio.correlation": "Correlation",
    "audio.rms_db": "RMS difference",
    "audio.window_error": "Error, worst 5 ms",
    "audio.window_level_db": "Level, worst 5 ms",
    "audio.peak_db": "Peak difference",
    "audio.clipped_share": "Share of clipped samples",
    "audio.side_correlation": "Correlation between channels' differences",
    "audio.duration_s": "Duration difference",
}
_GROUPS = {"frame": "Frames", "motion": "Frames", "latent": "Latents", "audio": "Audio", "stereo": "Audio"}
HEADLINE = ("ssim", "psnr", "mean_abs_diff", "clip")  # first choice for summary columns, in this order
PER_STEP = "latents.rel_l2"  # the metric that the plot of the steps shows

_TAP_WORDS = {
    "cond": "conditional branch",
    "uncond": "unconditional branch",
    "stg": "STG branch",
    "modality": "modality branch",
}


def metric_label(name: str) -> str:
    return _METRICS.get(name) or one_line(name)


def metric_unit(name: str) -> str:
    return REGISTRY[name].unit if name in REGISTRY else ""


def metric_doc(name: str) -> str:
    return REGISTRY[name].doc if name in REGISTRY else ""


def metric_group(name: str) -> str:
    """``Frames``, ``Latents``, ``Audio``, ``Parallel``, or ``Other`` for a metric that this version does not know."""
    if name.startswith("parallel."):
        return "Parallel"
    return _GROUPS[REGISTRY[name].kind] if name in REGISTRY else "Other"


def limit_text(name: str, limit: float | None) -> str:
    """``≥ 0.95``, ``≤ 2e-06``, or nothing. Limits are inclusive."""
    if limit is None:
        return ""
    sign = {">=": "≥ ", "<=": "≤ "}[REGISTRY[name].sign] if name in REGISTRY else ""
    sign = "≤ " if name.startswith("parallel.") else sign
    return sign + number(limit)


def brief_reason(case: CaseResult, shown: int = 2) -> str:
    """The reason with no more than ``shown`` violated limits spelled out, worst first; the metrics have the rest."""
    parts = case.reason.split("; ")
    outside = [name for name, metric in case.metrics.items() if metric.ok is False]
    violated = [part for part in parts if any(part.startswith(f"{name} is ") for name in outside)]
    if len(violated) <= shown:
        return case.reason
    other = [part for part in parts if part not in violated]
    return "; ".join([*violated[:shown], f"and {len(violated) - shown} more, see the table", *other])


def tap_words(tap: str) -> str:
    """``step.003/cond/block.12/ff/out`` -> ``step 3, conditional branch, block 12, ff/out``."""
    words: list[str] = []
    parts = visible(tap).split("/")
    while parts:
        numbered = re.fullmatch(r"(step|block)\.0*(\d+)", parts[0])
        if numbered:
            words.append(f"{numbered[1]} {numbered[2]}")
        elif words and parts[0] in _TAP_WORDS:
            words.append(_TAP_WORDS[parts[0]])
        else:
            break
        parts.pop(0)
    return ", ".join([*words, *(["/".join(parts)] if parts else [])])


def worst_latent(case: CaseResult) -> float | None:
    """The largest relative L2 over the case's latent streams; NaN counts as the largest."""
    values = [latent.rel_l2 for latent in case.latents.values()]
    return next((value for value in values if value != value), max(values, default=None))


def ordered(cases: tuple[CaseResult, ...]) -> list[CaseResult]:
    """Worst verdict first, then the largest distance of the latents, then by name."""

    def key(case: CaseResult) -> tuple[int, float, str, str]:
        distance = worst_latent(case)
        size = -1.0 if distance is None else (float("inf") if distance != distance else distance)
        return SEVERITY[case.verdict], -size, case.id, case.gate

    return sorted(cases, key=key)


def key_metric(case: CaseResult) -> str | None:
    """The metric to name in one line: the first that failed, else the first headline metric that was measured.

    The parallel gate's own come first.
    """
    failed = [name for name, metric in case.metrics.items() if metric.ok is False]
    measured = [name for name, metric in case.metrics.items() if metric.worst is not None]
    parallel = [name for name in ("parallel.final",) if name in measured]
    return next(iter([*failed, *parallel, *(name for name in HEADLINE if name in measured), *measured]), None)
