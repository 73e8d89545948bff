"""The gap ledger: what it says of exact, new, grown, known, shrunk and expired gaps, and how it is read and written."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import changed, sample

import thresholds
from conformance import gates, ledger
from conformance.acceptance import Acceptance
from conformance.errors import InputError
from conformance.generator import HANDSHAKE, Sample
from conformance.ledger import SHIPPED, SIZES, Cohort, Gap, Ledger
from conformance.ledger_rules import ROUNDING, Finding, accepted, consult, proposed
from conformance.matrix import all_cases
from conformance.proposal import write
from conformance.results import CaseResult, MetricResult
from conformance.verdicts import Verdict

CPU = Cohort(device="cpu", torch="2.13.0", diffusers="0.42.1", transformers="5.23.0", capability="AVX512", threads=1)
TODAY = date(2026, 11, 20)
ACCEPTED = Acceptance(reason="another kernel", owner="ada", date="2026-11-01", expires="2026-11-20")
CASE = next(case for case in all_cases() if case.id == "ltx-2/one-stage-t2v/unguided@single+diffusers-bf16")
ENVIRONMENT = {
    "versions": {"torch": "2.13.0+cpu", "diffusers": "0.42.1", "transformers": "5.23.0"},
    "device": {"kind": "cpu", "name": "cpu"},
    "cpu": {"capability": "AVX512"},
    "threads": {"intra": 1},
}


def _ledger(gate: str = "reference", **sizes: float) -> Ledger:
    """With one gap of ``CASE``; without any when no size is given. ``rel_l2`` and ``mean_abs_diff`` are sizes."""
    named = {"latents.rel_l2" if name == "rel_l2" else name: size for name, size in sizes.items()}
    gap = Gap(case=CASE.id, gate=gate, sizes=named, accepted=ACCEPTED)
    return Ledger(CPU, {(gap.case, gap.gate): gap} if sizes else {})


def _result(verdict: Verdict = Verdict.PASS, rel_l2: float | None = 1e-3, **sizes: float) -> CaseResult:
    found = {"latents.rel_l2": rel_l2, **sizes}
    metrics = {name: MetricResult(value=size, worst=size) for name, size in found.items()}
    return CaseResult(id=CASE.id, gate="reference", verdict=verdict, reason="within limits", metrics=metrics)


def _said(result: CaseResult, book: Ledger, *, cohort: Cohort = CPU, today: date = TODAY, **floors: float) -> Finding:
    named = {"latents.rel_l2" if name == "rel_l2" else name: floor for name, floor in floors.items()}
    return consult(result, book, cohort, named, today)


def test_an_exact_case_needs_no_entry() -> None:
    found = _said(_result(Verdict.PASS_EXACT, 0.0), _ledger())
    assert (found.verdict, found.gap["state"]) == (Verdict.PASS_EXACT, "exact")


@pytest.mark.parametrize("verdict", [Verdict.PASS, Verdict.CALIBRATION_NEEDED])
def test_a_gap_that_nobody_accepted_is_red_though_it_keeps_the_limits(verdict: Verdict) -> None:
    found = _said(_result(verdict), _ledger())
    assert (found.verdict, found.gap["state"]) == (Verdict.FAIL, "new")
    assert "latents.rel_l2 0.001" in found.reason
    assert f"conformance gt accept OUT '{CASE.id}' --as gap --reason" in found.reason


def test_a_known_gap_is_what_the_limits_say_and_waived_without_limits() -> None:
    book = _ledger(rel_l2=1e-3)
    for verdict, expected in (
        (Verdict.PASS, Verdict.PASS),
        (Verdict.CALIBRATION_NEEDED, Verdict.WAIVED),
        (Verdict.FAIL, Verdict.FAIL),
    ):
        found = _said(_result(verdict), book)
        assert (found.verdict, found.gap["state"]) == (expected, "known")
    assert "accepted by ada on 2026-11-01 until 2026-11-20: another kernel" in _said(_result(), book).reason


@pytest.mark.parametrize("size", [1.001e-3, math.inf, math.nan])
def test_a_grown_gap_is_red(size: float) -> None:
    found = _said(_result(rel_l2=size), _ledger(rel_l2=1e-3))
    assert (found.verdict, found.gap["state"]) == (Verdict.FAIL, "grown")
    assert "latents.rel_l2 was 0.001, is" in found.reason


def test_the_rounding_of_a_metric_is_no_growth() -> None:
    book = _ledger(rel_l2=1.0)
    assert _said(_result(rel_l2=1 + ROUNDING), book).gap["state"] == "known"
    assert _said(_result(rel_l2=1 + 3 * ROUNDING), book).gap["state"] == "grown"


def test_any_distance_counts_and_the_farthest_is_named() -> None:
    found = _said(_result(mean_abs_diff=0.5), _ledger(rel_l2=1e-3, mean_abs_diff=0.1))
    assert (found.gap["metric"], found.gap["recorded"], found.gap["measured"]) == ("mean_abs_diff", 0.1, 0.5)
    assert found.verdict == Verdict.FAIL
    assert _said(_result(mean_abs_diff=0.5), _ledger(rel_l2=1e-3)).gap["state"] == "grown"  # one not recorded
    assert _said(_result(), _ledger(rel_l2=1e-3, mean_abs_diff=0.1)).gap["state"] == "grown"  # one not measured


def test_an_expired_gap_is_red_from_the_day_after() -> None:
    assert _said(_result(), _ledger(rel_l2=1e-3), today=TODAY).verdict == Verdict.PASS
    found = _said(_result(), _ledger(rel_l2=1e-3), today=date(2026, 11, 21))
    assert found.verdict == Verdict.FAIL
    assert "until 2026-11-20" in found.reason
    shrunk = _said(_result(rel_l2=1e-4), _ledger(rel_l2=1e-3), today=date(2026, 11, 21))
    assert shrunk.verdict == Verdict.FAIL


def test_a_shrunk_gap_passes_and_the_ledger_is_to_be_updated(tmp_path: Path) -> None:
    book = _ledger(rel_l2=1e-3)
    judged = []
    for size, verdict in ((1e-4, Verdict.PASS), (0.0, Verdict.PASS_EXACT)):
        found = _said(_result(verdict, size), book)
        assert (found.verdict, found.gap["state"]) == (verdict, "shrunk")
        judged.append(replace(_result(verdict, size), gap=found.gap))
    better = proposed(judged[:1], book)
    assert better.gaps[CASE.id, "reference"] == replace(book.gaps[CASE.id, "reference"], sizes={"latents.rel_l2": 1e-4})
    assert proposed(judged[1:], book).gaps == {}
    write(tmp_path, book, better)
    assert ledger.read(tmp_path / "gaps.json") == better
    (tmp_path / "thresholds" / "gaps").mkdir(parents=True)
    (tmp_path / "thresholds" / "gaps" / "cpu.json").write_text(book.dump())
    subprocess.run(["git", "apply", "gaps.patch"], cwd=tmp_path, check=True)
    assert (tmp_path / "thresholds" / "gaps" / "cpu.json").read_text() == better.dump()


def test_what_did_not_shrink_changes_no_ledger() -> None:
    book = _ledger(rel_l2=1e-3)
    for result in (_result(), _result(rel_l2=2e-3)):
        assert proposed([replace(result, gap=_said(result, book).gap)], book) is book


def test_the_ledger_of_another_cohort_does_not_speak_and_says_so() -> None:
    for name, value in (("device", "NVIDIA H200"), ("torch", "2.14.0"), ("diffusers", "absent")):
        found = _said(_result(), _ledger(), cohort=replace(CPU, **{name: value}))
        assert (found.verdict, found.gap["state"]) == (Verdict.PASS, "none")
        assert name in found.gap["sentence"]
        assert value in found.gap["sentence"]


@pytest.mark.parametrize("other", [{"capability": "AVX2"}, {"threads": 2}])
def test_where_runs_do_not_repeat_to_the_bit_sizes_may_differ_by_the_floor(other: dict[str, Any]) -> None:
    book, cohort = _ledger(rel_l2=1e-3), replace(CPU, **other)
    assert _said(_result(rel_l2=1.1e-3), book, rel_l2=1e-4).gap["state"] == "grown"
    assert _said(_result(rel_l2=1.1e-3), book, cohort=cohort, rel_l2=1e-4).gap["state"] == "known"
    assert _said(_result(rel_l2=1.2e-3), book, cohort=cohort, rel_l2=1e-4).gap["state"] == "grown"
    assert _said(_result(rel_l2=1.1e-3), book, cohort=cohort).gap["state"] == "grown"  # no floor is known
    assert _said(_result(), _ledger(), cohort=cohort).gap["state"] == "new"


@pytest.mark.parametrize("verdict", [Verdict.INCOMPARABLE, Verdict.STALE_REFERENCE, Verdict.UNSUPPORTED])
def test_what_is_no_matter_of_distance_is_no_matter_of_the_ledger(verdict: Verdict) -> None:
    found = _said(_result(verdict), _ledger())
    assert (found.verdict, found.gap) == (verdict, {})
    assert _said(_result(Verdict.FAIL, None), _ledger()).gap == {}


NUMBERS = st.floats(0, 1e6) | st.just(math.inf)


@given(st.dictionaries(st.sampled_from(SIZES), st.tuples(NUMBERS, NUMBERS), min_size=1))
def test_grown_exactly_when_a_size_exceeds_its_record(pairs: dict[str, tuple[float, float]]) -> None:
    gap = Gap(case=CASE.id, gate="reference", sizes={n: then for n, (then, _) in pairs.items()}, accepted=ACCEPTED)
    metrics = {name: MetricResult(value=now, worst=now) for name, (_, now) in pairs.items()}
    result = CaseResult(id=CASE.id, gate="reference", verdict=Verdict.PASS, reason="", metrics=metrics)
    found = _said(result, Ledger(CPU, {(CASE.id, "reference"): gap}))
    grew = any(now > then + (0 if math.isinf(then) else ROUNDING * then) for then, now in pairs.values())
    assert (found.gap["state"] == "grown") == grew == (found.verdict == Verdict.FAIL)


def test_a_file_reads_back_equal_and_its_order_does_not_depend_on_the_history(tmp_path: Path) -> None:
    book = accepted(_result(mean_abs_diff=math.inf), _ledger(), ACCEPTED)
    other = replace(_result(), id="a")
    (tmp_path / "a.json").write_text(accepted(other, book, ACCEPTED).dump())
    assert ledger.read(tmp_path / "a.json") == accepted(other, book, ACCEPTED)
    assert (
        accepted(_result(mean_abs_diff=math.inf), accepted(other, _ledger(), ACCEPTED), ACCEPTED).dump()
        == (tmp_path / "a.json").read_text()
    )


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("schema",), "x/1", "'schema' is 'x/1'"),
        (("cohort", "device"), "", "'device' is ''"),
        (("cohort", "threads"), "1", "'threads' is '1'"),
        (("gaps",), {}, "'gaps' is {}"),
        (("gaps", 0, "case"), " ", "'case' is ' '"),
        (("gaps", 0, "gate"), "parallel", "'gate' is 'parallel'"),
        (("gaps", 0, "sizes"), {}, "'sizes' is {}"),
        (("gaps", 0, "sizes"), {"ssim": 1, "latents.rel_l2": 1}, "'sizes' is 'ssim'"),
        (("gaps", 0, "sizes", "latents.rel_l2"), "nan", "'sizes.latents.rel_l2' is 'nan'"),
        (("gaps", 0, "sizes", "latents.rel_l2"), -1, "'sizes.latents.rel_l2' is -1"),
        (("gaps", 0, "accepted", "owner"), "", "'owner' is ''"),
        (("gaps", 0, "accepted", "reason"), "a\nb", "'reason' is 'a\\nb'"),
        (("gaps", 0, "accepted", "expires"), "2026-10-01", "not before the date"),
        (("gaps", 0, "accepted", "expires"), "20261201", "a date, YYYY-MM-DD"),
        (("gaps", 0, "accepted"), {}, "'acceptance' is {}"),
        (("gaps", 0, "why"), 1, "expected an object with fields"),
    ],
)
def test_a_malformed_ledger_is_named(tmp_path: Path, path: tuple[Any, ...], value: Any, words: str) -> None:
    data: Any = json.loads(_ledger(rel_l2=1e-3).dump())
    target = data
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    (tmp_path / "x.json").write_text(json.dumps(data))
    with pytest.raises(InputError) as error:
        ledger.load(tmp_path, "cpu")
    assert words in str(error.value)
    assert str(tmp_path / "x.json") in str(error.value)
    assert "\n" not in str(error.value)


def test_one_ledger_a_device_and_one_entry_a_case_and_gate(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(_ledger(rel_l2=1.0).dump())
    data = json.loads(_ledger(rel_l2=1.0).dump())
    (tmp_path / "b.json").write_text(json.dumps({**data, "gaps": data["gaps"] * 2}))
    with pytest.raises(InputError, match="two entries for gate 'reference'"):
        ledger.load(tmp_path, "cpu")
    shutil.copy(tmp_path / "a.json", tmp_path / "b.json")
    with pytest.raises(InputError, match=r"a\.json and b\.json are both of device 'cpu'"):
        ledger.load(tmp_path, "cpu")
    with pytest.raises(InputError, match="no such gap ledger"):
        ledger.load(tmp_path / "none", "cpu")


def test_the_shipped_ledger_is_empty_and_of_the_cpu() -> None:
    shipped = ledger.load(None, "cpu")
    assert shipped is not None
    assert (shipped.cohort.device, dict(shipped.gaps)) == ("cpu", {})
    assert (SHIPPED / "cpu.json").read_text() == shipped.dump()
    assert ledger.load(None, "NVIDIA H200") == shipped  # it says itself that it is of another device


def _sample(**values: Any) -> Sample:
    """With all that both sides must echo."""
    return changed(sample(), **{"resolved": dict.fromkeys(HANDSHAKE, 1), "ledger": ENVIRONMENT, **values})


def _judged(gate: str, book: Ledger | None, case: Any = CASE, **values: Any) -> CaseResult:
    moved = {"video": sample().latents["video"] * (1 + 1e-7), "audio": sample().latents["audio"]}
    candidate = _sample(**{"latents": moved, **values})
    return gates.judge(
        case, gate, candidate, _sample(), thresholds=thresholds.load(device="cpu"), clip=None, ledger=book
    )


def test_a_case_that_leaves_bit_equality_within_its_limits_is_red_by_the_ledger_alone() -> None:
    assert _judged("reference", None).verdict == Verdict.PASS
    found = _judged("reference", _ledger())
    assert (found.verdict, found.gap["state"]) == (Verdict.FAIL, "new")
    assert found.outputs.keys() == {"frames", "audio", "latents/video", "latents/audio"}


def test_the_self_gate_allows_no_bit_on_a_cpu_and_the_floor_elsewhere() -> None:
    assert _judged("self", None).verdict == Verdict.FAIL
    assert "--as self" in _judged("self", _ledger()).reason
    size = _judged("self", None).metrics["latents.rel_l2"].worst
    assert size is not None
    known = _ledger("self", **dict.fromkeys(SIZES, 0.0) | {"latents.rel_l2": size})
    assert _judged("self", known).verdict == Verdict.WAIVED
    elsewhere = {**ENVIRONMENT, "device": {"kind": "cuda", "name": "NVIDIA H200"}}
    assert _judged("self", _ledger(), ledger=elsewhere).verdict == Verdict.PASS
    far = {"video": sample(1).latents["video"], "audio": sample().latents["audio"]}
    found = _judged("self", _ledger(), ledger=elsewhere, latents=far)
    assert found.verdict == Verdict.FAIL
    entry = thresholds.load(device="cpu").for_case(CASE.id)
    assert entry is not None
    floors = {bound.metric: bound.noise_floor for bound in entry.bounds}
    assert {name: found.metrics[name].limit for name in floors} == floors


def test_departures_from_the_matrix_are_tried_out_and_not_in_the_ledger() -> None:
    found = _judged("reference", _ledger(), case=replace(CASE, kernels="on"))
    assert (found.verdict, found.gap) == (Verdict.CALIBRATION_NEEDED, {})
