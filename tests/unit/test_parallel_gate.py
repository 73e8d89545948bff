"""The parallel gate: what is exact, within bounds, outside of them, and what a failing rank does to a run."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from samples import changed, sample

from conformance import parallel_gate, results, runner
from conformance.case import Case, Layout
from conformance.errors import RanksDisagree
from conformance.generator import Probe, Sample, Tap
from conformance.matrix import all_cases, select, shard
from conformance.parallel_bounds import bounds
from conformance.ranked import Part, merge
from conformance.results import Results
from conformance.runner import Options, collect, make_jobs, open_out, run_jobs
from conformance.ulps import distance, histogram
from conformance.verdicts import Verdict
from reports.render import write_report

CASES = {case.id: case for case in all_cases()}
CFG2 = CASES["ltx-2.3/one-stage-t2v/all-guidance@cfg2+official-1.0.0-bf16"]
TP2 = CASES["ltx-2.3/one-stage-t2v/all-guidance@tp2+diffusers-bf16"]
TP2_TEXT = CASES["ltx-2.3/one-stage-t2v/all-guidance@tp2-text+diffusers-fp32"]
TP2_FP32 = CASES["ltx-2.3/one-stage-t2v/all-guidance@tp2+diffusers-fp32"]
FOUR = CASES["ltx-2.3/one-stage-t2v/all-guidance@cfg2-tp2+official-1.0.0-bf16"]


@pytest.fixture
def noted(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In the place of a checkpoint: the folder in which ranks leave their process ids."""
    folder = tmp_path_factory.mktemp("noted")
    monkeypatch.setattr(
        runner, "prepare_checkpoints", lambda models, options, on_place: dict.fromkeys(models, (str(folder), "0"))
    )
    return folder


def _run(cases: list[Case], out: Path, engine: str, **more: Any) -> Results:
    options = Options(out=out, engine=f"ranked_fakes:{engine}", **{"timeout": 30.0, **more})
    with open_out(out, resume=options.resume):
        got = list(run_jobs(make_jobs(cases, options), options))
        whole = collect(cases, got, options, time.time(), "test")
        write_report(whole, out)
    return whole


LAYOUTS = {"tp2", "tp4", "cfg2", "cfg4", "ulysses2", "ulysses4", "ring2", "ulysses2-ring2", "cfg2-tp2", "ulysses2-tp2"}
LAYOUTS |= {"tp2-text"}


def test_suite_holds_every_wanted_layout() -> None:
    suite = select(CASES.values(), [], "parallel")
    for dtype in ("fp32", "bf16"):
        assert {case.layout.name for case in suite if case.dtype == dtype} == LAYOUTS
    assert {case.model for case in suite} == {"ltx-2", "ltx-2.3"}
    assert {case.request.second is None for case in suite} == {True, False}
    assert any(case.variant == "all-guidance-odd" for case in suite)
    assert all((case.numerics == "official-1.0.0") == (case.layout.cfg > 1) for case in suite)
    assert not {case.id for case in suite} & {case.id for case in select(CASES.values(), [], "default")}
    assert {case.layout.name for case in select(CASES.values(), ["*@tp2+*"], "default")} == {"tp2"}
    parts = [shard(suite, index, 3) for index in (1, 2, 3)]
    assert sorted(case.id for part in parts for case in part) == sorted(case.id for case in suite)


@pytest.mark.usefixtures("noted")
def test_ranks_against_one_device_in_one_run(tmp_path: Path) -> None:
    whole = _run([CFG2, TP2, FOUR], tmp_path, "good")
    assert [(case.gate, case.verdict) for case in whole.cases] == [("parallel", Verdict.PASS_EXACT)] * 3
    cfg = whole.cases[0]
    assert cfg.axes["layout"] == "cfg2"
    mine, theirs = cfg.ledger["candidate"], cfg.ledger["reference"]
    assert (mine["layout"], mine["ranks"], mine["backend"]) == ("cfg2", 2, "gloo")
    assert "ranks" not in theirs
    assert cfg.divergence is None  # taps of both ranks are there: a missing one fails
    assert cfg.metrics["parallel.first_forward"].limit == 0.0
    assert results.load(tmp_path / "results.json").counts == whole.counts
    page = (tmp_path / "index.html").read_text()
    assert "parallel gate" in page
    assert "Final latents, relative L2" in page
    assert "Taps of the parallel gate, layout cfg2" in page


@pytest.mark.parametrize(
    ("engine", "verdict", "words"),
    [
        ("dies", Verdict.INFRA_ERROR, ("rank 1 of 2 died: killed by SIGKILL", "all_reduce, its collective number 2")),
        ("raises", Verdict.INFRA_ERROR, ("rank 1 of 2 raised ZeroDivisionError: no heads left", "after step.000/un")),
        ("hangs", Verdict.INFRA_ERROR, ("rank 1 of 2 hangs at: engine, after step.000", "rank 0 is at", "in barrier")),
        ("unsupported", Verdict.UNSUPPORTED, ("engine: layout is not implemented",)),
        ("diverges", Verdict.FAIL, ("tap step.000/guided_x0/video is not the same on rank 0 as on rank 1",)),
    ],
)
def test_a_failing_rank_ends_its_case_alone(
    engine: str, verdict: Verdict, words: tuple[str, ...], tmp_path: Path, noted: Path
) -> None:
    whole = _run([CFG2, TP2_FP32], tmp_path, engine, timeout=10.0 if engine == "hangs" else 30.0)
    bad, good = whole.cases
    assert bad.verdict == verdict, bad.reason
    assert good.verdict == Verdict.PASS_EXACT, good.reason
    for text in words:
        assert text in bad.reason
    ranks = [int(path.name) for path in noted.iterdir()]
    assert len(ranks) >= 5  # two ranks a case, and one device at least for the good one
    assert [pid for pid in ranks if psutil.pid_exists(pid)] == []


@pytest.mark.usefixtures("noted")
def test_a_layout_that_only_moves_data_may_change_no_bit(tmp_path: Path) -> None:
    moved = _run([CFG2, TP2], tmp_path, "moves")
    assert [case.verdict for case in moved.cases] == [Verdict.FAIL, Verdict.PASS]
    assert "cfg2 may not change a bit" in moved.cases[0].reason
    assert "first to differ is step.000/guided_x0/video" in moved.cases[0].reason
    assert "tp2 within its bounds" in moved.cases[1].reason
    assert [tap.role for tap in moved.cases[1].taps][-2:] == ["first", "worst"]
    read = results.load(tmp_path / "results.json")
    assert read.cases[1].taps == moved.cases[1].taps
    broken = _run([TP2], tmp_path / "broken", "breaks").cases[0]
    assert broken.verdict == Verdict.FAIL
    assert "latents/final/video is" in broken.reason
    assert broken.metrics["parallel.final"].ok is False


@pytest.mark.usefixtures("noted")
def test_one_device_is_no_layout_to_judge(tmp_path: Path) -> None:
    case = replace(CFG2, layout=Layout.single())
    result = _run([case], tmp_path, "good", reference="single").cases[0]
    assert (result.gate, result.verdict) == ("parallel", Verdict.UNSUPPORTED)


def _named(names: list[str], *, offset: float = 0.0) -> Sample:
    made = changed(sample())
    probe = Probe()
    for index, name in enumerate(names):
        probe.tap(name, torch.full((2,), index + offset))
    made.trace, made.tensors = probe.trace, probe.tensors
    return made


def test_taps_of_ranks_are_merged_in_the_order_of_the_computation() -> None:
    shared = ["sigmas", "step.000/latents/video"]
    first = _named([*shared, "step.000/cond/velocity/video", "step.000/guided_x0/video"])
    second = changed(first, tensors={"step.000/uncond/velocity/video": torch.ones(1)})
    trace = dict(first.trace)
    moved = trace.pop("step.000/cond/velocity/video")
    second.trace = {**{n: trace[n] for n in shared}, "step.000/uncond/velocity/video": moved, **trace}
    second.trace["late"] = moved
    second.trace = {
        name: second.trace[name]
        for name in [*shared, "step.000/uncond/velocity/video", *trace, "late"]
        if name in second.trace
    }
    merged = merge([Part(sample=first, outputs={}), Part(sample=second, outputs={})])
    assert list(merged.trace) == [
        *shared,
        "step.000/cond/velocity/video",
        "step.000/uncond/velocity/video",
        "step.000/guided_x0/video",
        "late",
    ]
    assert list(merged.tensors) == [
        *shared,
        "step.000/cond/velocity/video",
        "step.000/uncond/velocity/video",
        "step.000/guided_x0/video",
    ]


def test_ranks_that_disagree_are_named() -> None:
    parts = [Part(sample=_named(["sigmas", "x"]), outputs={"frames": "a"}) for _ in range(3)]
    other = _named(["sigmas", "x"])
    other.trace["x"] = Tap.of(torch.full((2,), 9.0))
    with pytest.raises(RanksDisagree, match="tap x is not the same on rank 0, 2 as on rank 1"):
        merge([parts[0], Part(sample=other, outputs={"frames": "a"}), parts[2]])
    with pytest.raises(RanksDisagree, match="frames is not the same on rank 0, 1 as on rank 2"):
        merge([*parts[:2], replace(parts[2], outputs={"frames": "b"})])
    with pytest.raises(RanksDisagree, match="audio is not the same"):
        merge([replace(parts[0], outputs={"frames": "a", "audio": "a"}), *parts[1:]])


def _base() -> Sample:
    made = sample(outputs=1)
    probe = Probe()
    draw = torch.Generator().manual_seed(4)
    for name in ("noise/video", "step.000/cond/velocity/video", "step.000/cond/block.00/ff/out", "latents/final/video"):
        probe.tap(name, torch.randn(64, generator=draw))
    made.latents = {"video": probe.tensors["latents/final/video"]}
    made.ledger = {"exchanges": {"text": 1, "steps": 4}}
    made.trace, made.tensors = probe.trace, probe.tensors
    handshake = "height width num_frames frame_rate steps sigmas video_tokens audio_tokens guidance stg_blocks skip_v2a"
    made.resolved = dict.fromkeys([*handshake.split(), "dtype", "quantization", "noise", "positions", "image"], 1)
    made.resolved |= {"second_stage": None, "vae_tiling": None, "embeds": "e", "weights": "w"}
    return made


def _with_tap(base: Sample, name: str, relative: float) -> Sample:
    made = changed(base)
    made.tensors[name] = made.tensors[name] * (1 + relative)
    made.trace[name] = Tap.of(made.tensors[name])
    if name.startswith("latents/final"):
        made.latents["video"] = made.tensors[name]
    return made


def _verdict(case: Case, candidate: Sample, reference: Sample) -> tuple[Verdict, str]:
    result, _ = parallel_gate.judge(case, candidate, reference, clip=None)
    return result.verdict, result.reason


def test_every_rule_of_the_gate() -> None:
    base = _base()
    assert _verdict(TP2_FP32, base, base)[0] == Verdict.PASS_EXACT
    allowed = bounds(TP2_FP32.layout, "fp32", "cpu")
    final, inner = "latents/final/video", "step.000/cond/block.00/ff/out"
    close = _with_tap(_with_tap(base, final, 0.5 * allowed.final), inner, 1e-3)
    verdict, reason = _verdict(TP2_FP32, close, base)
    assert verdict == Verdict.PASS
    assert f"first to differ is {inner}" in reason
    assert f"worst is {inner}" in reason
    for name, relative, words in (
        (final, 2 * allowed.final, f"{final} is"),
        ("step.000/cond/velocity/video", 2 * allowed.first_forward, "step.000/cond/velocity/video is"),
        ("noise/video", 1e-7, "changes an input of the model: noise/video"),
    ):
        verdict, reason = _verdict(TP2_FP32, _with_tap(base, name, relative), base)
        assert verdict == Verdict.FAIL, name
        assert words in reason
    verdict, reason = _verdict(CFG2, _with_tap(base, inner, 1e-6), base)
    assert verdict == Verdict.FAIL
    assert "may not change a bit" in reason


def test_a_stage_in_which_no_rank_needs_another_is_not_parallel() -> None:
    """Every rank that computes all of it returns the right bits."""
    base = _base()
    for ledger in ({}, {"exchanges": {}}, {"exchanges": {"stage.1": 4}}):
        verdict, reason = _verdict(TP2_FP32, changed(base, ledger=ledger), base)
        assert verdict == Verdict.FAIL
        assert "tp2: 'steps' exchanged nothing between ranks" in reason
    verdict, reason = _verdict(TP2_TEXT, changed(base, ledger={"exchanges": {"steps": 4}}), base)
    assert verdict == Verdict.FAIL
    assert "tp2-text: 'text' exchanged nothing" in reason
    two = changed(base)
    for name in ("stage.1/step.000/cond/velocity/video", "stage.2/step.000/cond/velocity/video"):
        two.trace[name] = two.trace["latents/final/video"]
    del two.trace["step.000/cond/velocity/video"], two.trace["step.000/cond/block.00/ff/out"]
    verdict, reason = _verdict(TP2_FP32, changed(two, ledger={"exchanges": {"stage.1": 4}}), two)
    assert verdict == Verdict.FAIL
    assert "tp2: 'stage.2' exchanged nothing" in reason
    assert _verdict(TP2_FP32, changed(two, ledger={"exchanges": {"stage.1": 4, "stage.2": 2}}), two)[0] == "PASS_EXACT"


@pytest.mark.usefixtures("noted")
def test_exchanges_of_the_steps_are_counted(tmp_path: Path) -> None:
    good, idle = (_run([TP2_FP32], tmp_path / name, name).cases[0] for name in ("good", "alone"))
    assert good.ledger["candidate"]["exchanges"] == {"steps": 2}  # a barrier is none
    assert (good.verdict, idle.verdict) == (Verdict.PASS_EXACT, Verdict.FAIL)
    assert "exchanged nothing" in idle.reason


def _with_text(base: Sample, embeds: float, context: float) -> Sample:
    """Text states and contexts that are off by so much; their digest too is echoed."""
    made = changed(base)
    draw = torch.Generator().manual_seed(5)
    for name, relative in (("text/pos/embeds", embeds), ("connector/pos/video", context)):
        made.tensors[name] = torch.randn(64, generator=draw) * (1 + relative)
        made.trace[name] = Tap.of(made.tensors[name])
    made.resolved["embeds"] = {"pos": made.trace["text/pos/embeds"].sha256}
    return made


def test_text_is_bounded_where_the_layout_cuts_its_encoder_and_exact_elsewhere() -> None:
    base = _with_text(_base(), 0.0, 0.0)
    limit = bounds(TP2_TEXT.layout, "fp32", "cpu").text
    near = _with_text(_base(), 0.5 * limit, 0.5 * limit)
    assert _verdict(TP2_TEXT, near, base)[0] == Verdict.PASS
    verdict, reason = _verdict(TP2_FP32, near, base)
    assert verdict == Verdict.FAIL
    assert "changes an input: different inputs: embeds.pos" in reason
    for far, name in (
        (_with_text(_base(), 2 * limit, 0.0), "text/pos/embeds"),
        (_with_text(_base(), 0.0, 2 * limit), "connector/pos/video"),
    ):
        verdict, reason = _verdict(TP2_TEXT, far, base)
        assert verdict == Verdict.FAIL
        assert f"tp2-text: {name} is" in reason
    verdict, reason = _verdict(TP2_TEXT, _with_tap(near, "noise/video", 1e-7), base)
    assert verdict == Verdict.FAIL
    assert "changes an input of the model: noise/video" in reason
    unseen = [changed(each) for each in (near, base)]
    for each in unseen:
        del each.trace["text/pos/embeds"]
    verdict, reason = _verdict(TP2_TEXT, *unseen)
    assert verdict == Verdict.FAIL
    assert "embeds.pos" in reason


def test_taps_must_be_there_and_alike() -> None:
    base = _base()
    lacking, shaped, other, more = (changed(base) for _ in range(4))
    del lacking.trace["step.000/cond/block.00/ff/out"]
    shaped.trace["step.000/cond/block.00/ff/out"] = Tap.of(torch.zeros(32))
    other.resolved = {**base.resolved, "noise": 2}
    more.trace["extra"] = Tap.of(torch.zeros(1))
    for candidate, words in (
        (lacking, "tap step.000/cond/block.00/ff/out is there on one device alone (1 such taps)"),
        (shaped, "ff/out is float32 [32], on one device float32 [64]"),
        (other, "changes an input: different inputs: noise is 2 for the candidate"),
        (more, "tap extra is there on the ranks alone"),
    ):
        verdict, reason = _verdict(TP2_FP32, candidate, base)
        assert verdict == Verdict.FAIL
        assert words in reason


def test_bounds_follow_from_the_layout() -> None:
    for name in ("cfg2", "cfg4", "ulysses2", "ulysses4", "cfg2-ulysses2"):
        for dtype in ("fp32", "bf16"):
            exact = bounds(Layout.parse(name), dtype, "cpu")
            assert (exact.text, exact.first_forward, exact.final, exact.decoded) == (0.0, 0.0, 0.0, 0.0)
    for name in ("tp2", "ring2", "ulysses2-ring2", "cfg2-tp2"):
        fp32, bf16 = (bounds(Layout.parse(name), dtype, "cpu") for dtype in ("fp32", "bf16"))
        assert 0 == fp32.text < fp32.first_forward < fp32.final < bf16.final < 1
    fp32, bf16 = (bounds(Layout.parse("tp2-text"), dtype, "cpu") for dtype in ("fp32", "bf16"))
    assert 0 < fp32.text < bf16.text < 1
    assert "tp sums" in bounds(Layout.parse("tp2"), "fp32", "cpu").reason


def test_on_a_gpu_rows_decide_about_bits_and_branches_do_not() -> None:
    assert bounds(Layout.parse("cfg2"), "fp32", "cuda:0").final == 0.0
    assert "fewer rows" in bounds(Layout.parse("ulysses2"), "fp32", "cuda:0").reason
    assert bounds(Layout.parse("cfg2-ulysses2"), "bf16", "cuda:0") == replace(
        bounds(Layout.parse("tp2"), "bf16", "cpu"), reason=bounds(Layout.parse("ulysses2"), "bf16", "cuda:0").reason
    )


def test_the_candidate_s_device_decides_about_the_bounds() -> None:
    case = CASES["ltx-2.3/one-stage-t2v/all-guidance@ulysses2+diffusers-fp32"]
    base = _base()
    close = _with_tap(base, "step.000/cond/block.00/ff/out", 1e-6)
    assert _verdict(case, close, base)[0] == Verdict.FAIL
    assert _verdict(case, replace(close, ledger=base.ledger | {"device": {"kind": "cuda:0"}}), base)[0] == Verdict.PASS


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_ulps_count_representable_numbers(dtype: torch.dtype) -> None:
    one = torch.tensor([1.0, -1.0, 0.0, 2.0], dtype=dtype)
    up = torch.nextafter(one.float(), torch.tensor(torch.inf)).to(dtype) if dtype == torch.float32 else None
    eps = torch.finfo(dtype).eps
    near = torch.tensor([1.0 + eps, -1.0 - 2 * eps, -0.0, 2.0 - 3 * eps], dtype=dtype)
    assert distance(one, near).tolist() == [1, 2, 0, 3]
    assert histogram(one, near) == {"0": 1, "1": 1, "2-3": 2}
    tiny = torch.finfo(dtype).smallest_normal
    assert distance(torch.tensor([tiny], dtype=dtype), torch.tensor([-tiny], dtype=dtype)).item() > 100
    if up is not None:
        assert distance(one, up).tolist() == [1, 1, 1, 1]


def test_ulps_of_other_dtypes_are_not_counted() -> None:
    assert histogram(torch.ones(2, dtype=torch.long), torch.ones(2, dtype=torch.long)) == {}
    assert histogram(torch.ones(2), torch.ones(2, dtype=torch.bfloat16)) == {}
