"""What the evidence behind limits does to a verdict: no run passes by limits that may not be used."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from samples import changed, sample
from test_thresholds import CASE, file, put, save
from test_waivers import waiver

import thresholds
from conformance.gates import judge
from conformance.generator import HANDSHAKE, Sample
from conformance.matrix import all_cases
from conformance.results import CaseResult
from conformance.verdicts import Verdict
from thresholds import waivers

NEAR = 1.5e-6  # of the latents: within the file's limit of 2e-6


def moved(base: Sample, share: float) -> Sample:
    return changed(base, latents={name: value.double() * (1 + share) for name, value in base.latents.items()})


def judged(folder: Path, share: float, data: Any, **expires: str) -> CaseResult:
    """The reference gate over latents moved by a share of themselves, with a waiver of what the limits miss."""
    save(folder / "cpu.json", data)
    save(folder / "waivers.json", {"schema": "conformance.waivers/1", "waivers": [waiver(**expires)]})
    base = replace(sample(size=32), resolved=dict.fromkeys(HANDSHAKE, 0))
    base = changed(base, latents={name: value.double() for name, value in base.latents.items()})
    case = next(case for case in all_cases() if case.id == CASE)
    limits = thresholds.load(folder)
    return judge(case, "reference", moved(base, share), base, thresholds=limits, clip=None)


def caught_by_latents() -> dict[str, Any]:
    limits = {"latents.rel_l2": file()["entries"][0]["limits"]["latents.rel_l2"]}
    data = put(file(), "entries.0.limits", limits)
    return put(data, "entries.0.evidence.power.caught", {"erf-gelu": ["latents.rel_l2"], "grey": ["structure"]})


def in_days(days: int) -> str:
    return (waivers.today() + timedelta(days=days)).isoformat()


@pytest.mark.parametrize(("share", "verdict"), [(0.0, "PASS_EXACT"), (NEAR, "PASS"), (1e-3, "FAIL")])
def test_with_a_waiver_that_holds_limits_judge(tmp_path: Path, share: float, verdict: str) -> None:
    result = judged(tmp_path, share, caught_by_latents(), expires=in_days(0))
    assert result.verdict == verdict, result.reason
    assert [each["defect"] for each in result.evidence["power"]["waived"]] == ["jpeg-75"]


@pytest.mark.parametrize(("share", "verdict"), [(0.0, "PASS_EXACT"), (NEAR, "CALIBRATION_NEEDED"), (1e-3, "FAIL")])
def test_the_day_after_its_waiver_a_case_passes_by_bits_alone(tmp_path: Path, share: float, verdict: str) -> None:
    result = judged(tmp_path, share, caught_by_latents(), expires=in_days(-1))
    assert result.verdict == verdict, result.reason
    assert ("expired after" in result.reason) == (verdict == Verdict.CALIBRATION_NEEDED)


def test_a_case_without_limits_prints_why(tmp_path: Path) -> None:
    data = put(put(file(), "entries.0.limits", {}), "entries.0.evidence.reason", "two modes lie 0.3 apart")
    data = put(data, "entries.0.evidence.power.caught", {})
    result = judged(tmp_path, NEAR, data, expires=in_days(1))
    assert (result.verdict, result.reason) == (Verdict.CALIBRATION_NEEDED, "two modes lie 0.3 apart")
    assert judged(tmp_path, 0.0, data, expires=in_days(1)).verdict == Verdict.PASS_EXACT
