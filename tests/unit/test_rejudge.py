"""Saved results under other limits: what rests on limits changes, nothing else does, and nothing is run."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conformance import cli
from conformance.compare import compare
from conformance.generator import Sample
from conformance.jsonio import dumps, write_json
from conformance.rejudge import by_limits, rejudge
from conformance.results import CaseResult, Results, load
from conformance.verdicts import Verdict
from thresholds import Thresholds

CASE = "ltx-2/one-stage-t2v/cfg@single+diffusers-fp32"


@dataclass(frozen=True)
class _Entry:
    """What rejudging reads of a thresholds entry."""

    limits: dict[str, float]
    device: str = "cpu"
    power: dict[str, Any] = field(default_factory=dict)
    waiver: str = ""

    def trouble(self, day: date) -> str:
        return self.waiver

    @property
    def evidence(self) -> dict[str, Any]:
        return {"cohort": {"device": self.device}, "owner": "tests", "limits": self.limits}

    def as_dict(self) -> dict[str, Any]:
        return self.evidence


def _thresholds(limits: dict[str, float], device: str = "cpu") -> Thresholds:
    return Thresholds({CASE: _Entry(limits, device)})  # type: ignore[dict-item]


def _sample(seed: int) -> Sample:
    random = np.random.default_rng(seed)
    frames = random.integers(100, 104, (1, 2, 16, 16, 3)).astype(np.uint8)
    frames[:, 1] += 2 * seed  # the second frame is the worst
    latents = {"video": torch.from_numpy(np.random.default_rng(0).normal(1, 1e-3 * seed, (1, 8)))}
    return Sample(frames=frames, frames_float=None, audio=None, audio_rate=None, latents=latents)


def _case(limits: dict[str, float] | None, **changes: Any) -> CaseResult:
    """A case as the reference gate saves it."""
    judged = compare(_sample(1), _sample(2), limits=limits)
    case = CaseResult(
        id=CASE,
        gate="reference",
        verdict=judged.verdict,
        reason=judged.reason,
        metrics=judged.metrics,
        latents=judged.latents,
        frames=judged.frames,
        ledger={"candidate": {"device": {"kind": "cpu", "name": "cpu"}}},
        evidence=_Entry(limits).evidence if limits else {},
    )
    return replace(case, **changes)


def _again(case: CaseResult, thresholds: Thresholds) -> CaseResult:
    return rejudge(Results(run={}, cases=(case,)), thresholds).cases[0]


TIGHT, LOOSE = {"mean_abs_diff": 0.5, "psnr": 60.0}, {"mean_abs_diff": 9.0, "psnr": 20.0}


@pytest.mark.parametrize(("before", "after"), [(TIGHT, LOOSE), (LOOSE, TIGHT), (None, LOOSE), (None, TIGHT)])
def test_verdict_reason_and_limits_are_those_of_a_run_under_the_new_limits(
    before: dict[str, float] | None, after: dict[str, float]
) -> None:
    again, run = _again(_case(before), _thresholds(after)), _case(after)
    assert (again.verdict, again.reason, again.metrics) == (run.verdict, run.reason, run.metrics)
    assert again.evidence["limits"] == after


def test_limits_are_inclusive() -> None:
    worst = _case(None).metrics["mean_abs_diff"].worst
    assert worst is not None
    assert _again(_case(None), _thresholds({"mean_abs_diff": worst})).verdict == Verdict.PASS
    below = float(np.nextafter(worst, 0))
    assert _again(_case(None), _thresholds({"mean_abs_diff": below})).verdict == Verdict.FAIL


@given(limits=st.dictionaries(st.sampled_from(["ssim", "psnr", "mean_abs_diff", "latents.rel_l2"]), st.floats(0, 99)))
def test_judging_twice_by_the_same_limits_changes_nothing(limits: dict[str, float]) -> None:
    once = rejudge(Results(run={}, cases=(_case(LOOSE),)), _thresholds(limits))
    assert rejudge(once, _thresholds(limits)) == once


def test_without_limits_a_case_is_not_judged_and_never_passes() -> None:
    for case in (_case(LOOSE), _case(TIGHT)):
        again = _again(case, Thresholds({}))
        assert again.verdict == Verdict.CALIBRATION_NEEDED
        assert again.evidence == {}
        assert all(metric.limit is None and metric.ok is None for metric in again.metrics.values())


def test_limits_of_another_device_do_not_count() -> None:
    again = _again(_case(TIGHT), _thresholds(LOOSE, device="NVIDIA H200"))
    assert again.verdict == Verdict.CALIBRATION_NEEDED
    assert again.reason.endswith("on cpu: they are of NVIDIA H200")


def test_a_limit_on_what_was_not_measured_is_no_pass() -> None:
    again = _again(_case(LOOSE), _thresholds({"clip": 0.9, "audio.correlation": 0.9, "lpips": 0.1}))
    assert again.verdict == Verdict.CALIBRATION_NEEDED
    for words in ("no CLIP weights", "neither side has audio", "lpips (no such metric)"):
        assert words in again.reason


@pytest.mark.parametrize(
    "changes",
    [
        {"verdict": Verdict.PASS_EXACT, "reason": "equal bit for bit: 2 frames"},
        {"verdict": Verdict.INCOMPARABLE, "reason": "sigmas differ"},
        {"verdict": Verdict.INFRA_ERROR, "reason": "time limit"},
        {"verdict": Verdict.WAIVED, "reason": "until 2026-12-01"},
        {"verdict": Verdict.FAIL, "reason": "frames are uint8 [1, 2], the reference's are uint8 [1, 3]"},
        {"verdict": Verdict.FAIL, "reason": "non-finite: tap step.000/cond/velocity/video"},
    ],
)
def test_a_verdict_that_rests_on_something_else_stays(changes: dict[str, Any]) -> None:
    for limits in (TIGHT, LOOSE):
        case = _case(TIGHT, **changes)
        again = _again(case, _thresholds(limits))
        assert (again.verdict, again.reason) == (case.verdict, case.reason)
        assert not by_limits(case)


@pytest.mark.parametrize(
    ("state", "sentence", "loose", "none"),
    [
        ("new", "no entry", Verdict.FAIL, Verdict.FAIL),
        ("grown", "the gap grew", Verdict.FAIL, Verdict.FAIL),
        ("known", "the gap was accepted; that day is over", Verdict.FAIL, Verdict.FAIL),
        ("known", "a known gap", Verdict.PASS, Verdict.WAIVED),
        ("shrunk", "a known gap, smaller now", Verdict.PASS, Verdict.WAIVED),
        ("none", "of another cohort", Verdict.PASS, Verdict.CALIBRATION_NEEDED),
    ],
)
def test_the_gap_ledgers_say_is_kept(state: str, sentence: str, loose: Verdict, none: Verdict) -> None:
    gap = {"state": state, "sentence": sentence}
    red = loose is Verdict.FAIL
    for case in (
        _case(TIGHT, gap=gap),
        _case(LOOSE, gap=gap, **({"verdict": loose, "reason": sentence} if red else {})),
    ):
        assert _again(case, _thresholds(TIGHT)).verdict == Verdict.FAIL
        again = _again(case, _thresholds({**LOOSE, "ssim": 0.0}))
        assert again.verdict == loose
        assert (sentence in again.reason) == (state != "none")
        assert _again(case, Thresholds({})).verdict == none
    waived = _case(None, gap=gap, verdict=Verdict.WAIVED, reason=f"no limits; {sentence}")
    assert _again(waived, _thresholds(TIGHT)).verdict == Verdict.FAIL


def test_on_a_cpu_no_thresholds_loosen_the_self_gate() -> None:
    case = _case(
        None,
        gate="self",
        verdict=Verdict.FAIL,
        reason="the gap grew",
        gap={"state": "grown", "sentence": "the gap grew"},
    )
    assert _again(case, _thresholds(LOOSE)).verdict == Verdict.FAIL
    unaccepted = _again(_case(None, gate="self"), _thresholds(LOOSE))
    assert unaccepted.verdict == Verdict.CALIBRATION_NEEDED
    assert all(metric.limit is None for metric in unaccepted.metrics.values())


@pytest.mark.parametrize("changes", [{"gate": "parallel"}, {"id": "compare/a-vs-b"}])
def test_gates_whose_limits_are_elsewhere_are_left_alone(changes: dict[str, Any]) -> None:
    case = _case(TIGHT, **changes)
    assert _again(case, _thresholds(LOOSE)) == case


def test_the_command_writes_a_second_report_and_keeps_the_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_json(tmp_path / "run" / "results.json", Results(run={"seconds": 1.0}, cases=(_case(TIGHT),)).as_dict())
    before = (tmp_path / "run" / "results.json").read_bytes()
    again = ["report", str(tmp_path / "run"), "--thresholds", str(_shipped())]
    assert cli.main([*again, "--out", str(tmp_path / "again")]) in (0, 1)
    found = load(tmp_path / "again" / "results.json")
    assert found.cases[0].evidence["limits"]
    assert f"by thresholds {found.run['rejudged'][:12]}" in (tmp_path / "again" / "index.html").read_text(
        encoding="utf-8"
    )
    assert cli.main([*again, "--out", str(tmp_path / "run")]) == 2
    assert "choose another folder" in capsys.readouterr().err
    assert (tmp_path / "run" / "results.json").read_bytes() == before
    assert dumps(found.as_dict()) != before.decode()


def _shipped() -> Path:
    import thresholds

    return thresholds.loader.SHIPPED / "cpu.json"


@pytest.mark.parametrize("state", ["new", "grown"])
def test_looser_limits_accept_no_gap(state: str) -> None:
    tight, loose = {"mean_abs_diff": 1e-9}, {"mean_abs_diff": 255.0}
    red = _case(tight, gap={"state": state, "sentence": "nobody accepted it"})
    (again,) = rejudge(Results(run={}, cases=(red,)), _thresholds(loose)).cases
    assert (again.verdict, again.reason) == (Verdict.FAIL, "nobody accepted it")
    (known,) = rejudge(Results(run={}, cases=(replace(red, gap={"state": "known"}),)), _thresholds(loose)).cases
    assert known.verdict == Verdict.PASS


@pytest.mark.parametrize("limits", [TIGHT, LOOSE])
def test_an_expired_waiver_takes_the_pass_away(limits: dict[str, float]) -> None:
    expired = Thresholds({CASE: _Entry(LOOSE, waiver="the waiver of erf_gelu ended")})  # type: ignore[dict-item]
    again = _again(_case(limits), expired)
    assert (again.verdict, again.reason) == (Verdict.CALIBRATION_NEEDED, "the waiver of erf_gelu ended")
