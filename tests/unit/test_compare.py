"""Verdicts of the comparator, in the order in which they are judged."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import changed, sample, with_noise

from conformance.compare import Comparison, compare
from conformance.generator import Sample
from conformance.metrics import REGISTRY, measure
from conformance.verdicts import Verdict

LOOSE = {"ssim": -1.0, "mean_abs_diff": 255.0}


def judged(candidate: Sample, reference: Sample, limits: dict[str, float] | None = None) -> Comparison:
    return compare(candidate, reference, limits=LOOSE if limits is None else limits)


def test_equal_samples_pass_exactly_and_are_still_measured() -> None:
    result = judged(sample(), sample(), {})
    assert (result.verdict, result.divergence) == (Verdict.PASS_EXACT, None)
    assert result.reason == "equal bit for bit: 6 frames, latents 'video', latents 'audio', audio"
    assert set(result.metrics) == set(REGISTRY)
    assert result.metrics["ssim"].worst == 1
    assert result.metrics["psnr"].worst == math.inf
    assert result.metrics["latents.rel_l2"].worst == 0
    assert result.metrics["audio.correlation"].worst == 1
    assert result.metrics["clip"].value is None
    assert "no CLIP weights" in result.metrics["clip"].note
    assert [(frame.batch, frame.index) for frame in result.frames] == [(b, f) for b in range(2) for f in range(3)]
    assert result.latents["video"].hash_equal
    assert [step.step for step in result.steps] == [0, 1, 2]


@pytest.mark.parametrize("field", ["frames", "latents", "audio"])
def test_one_bit_is_not_exact(field: str) -> None:
    candidate = sample()
    if field == "frames":
        candidate.frames[1, 2, 3, 4, 1] ^= 1
    elif field == "latents":
        last = candidate.latents["audio"][1, 5, 7]
        last.copy_(torch.nextafter(last, torch.tensor(9.0)))
    else:
        assert candidate.audio is not None
        candidate.audio[1, 1, 1999] = np.nextafter(candidate.audio[1, 1, 1999], np.float32(9))
    assert judged(candidate, sample()).verdict == Verdict.PASS
    nothing: tuple[dict[str, float] | None, ...] = (None, {})
    for limits in nothing:
        result = compare(candidate, sample(), limits=limits)
        assert result.verdict == Verdict.CALIBRATION_NEEDED
        assert "no limits" in result.reason


def test_negative_zero_in_a_latent_is_not_exact() -> None:
    a, b = sample(), sample()
    a.latents["video"][0, 0, 0], b.latents["video"][0, 0, 0] = -0.0, 0.0
    assert judged(a, b).verdict == Verdict.PASS


def test_structural_mismatches_name_both_shapes() -> None:
    base = sample()
    assert base.audio is not None
    video, other = base.latents["video"], base.latents["audio"]
    cases = [
        (changed(base, frames=base.frames[:, :2]), "[2, 2, 16, 16, 3], the reference's are uint8 [2, 3, 16, 16, 3]"),
        (
            changed(base, frames=base.frames[:, :, :8]),
            "uint8 [2, 3, 8, 16, 3], the reference's are uint8 [2, 3, 16, 16, 3]",
        ),
        (changed(base, frames=base.frames[:1]), "uint8 [1, 3, 16, 16, 3]"),
        (changed(base, frames=base.frames.astype(np.float32)), "float32 [2, 3, 16, 16, 3], the reference's are uint8"),
        (
            changed(base, audio=base.audio[:, :1]),
            "audio is float32 [2, 1, N] at 16000 Hz, the reference's is float32 [2, 2, N]",
        ),
        (changed(base, audio_rate=8000), "at 8000 Hz, the reference's is float32 [2, 2, N] at 16000 Hz"),
        (changed(base, audio=None, audio_rate=None), "audio is absent, the reference's is float32"),
        (changed(base, audio=base.audio[..., :1500]), "1500 samples, the reference's 2000"),
        (changed(base, latents={"video": video}), "latents are video [2, 6, 8], the reference's are audio"),
        (changed(base, latents={"video": video[:, :5], "audio": other}), "video [2, 5, 8], the reference's are"),
        (changed(base, latents={}), "latents are absent"),
    ]
    for candidate, words in cases:
        for one, two in ((candidate, base), (base, candidate)):
            result = judged(one, two)
            assert result.verdict == Verdict.FAIL
        result = judged(candidate, base)
        assert words in result.reason
        assert (result.frames == ()) == ("frames" in result.reason)
        assert (result.metrics["latents.rel_l2"].worst is None) == ("latents" in result.reason)


def test_frames_of_another_layout_are_refused_on_both_sides() -> None:
    grey = changed(sample(), frames=sample().frames[..., 0])
    result = judged(grey, grey)
    assert result.verdict == Verdict.FAIL
    assert "expected uint8 [B,F,H,W,3]" in result.reason
    assert result.metrics["ssim"].note == result.reason


def test_a_limit_on_duration_allows_other_lengths() -> None:
    base = sample()
    assert base.audio is not None
    shorter = changed(base, audio=base.audio[..., :1984])
    assert judged(shorter, base, {"audio.duration_s": 0.001}).verdict == Verdict.PASS
    assert judged(shorter, base, {"audio.duration_s": 0.0009}).verdict == Verdict.FAIL


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("field", ["latents", "frames_float", "audio", "trace"])
def test_non_finite_values(field: str, bad: float) -> None:
    broken = sample()
    if field == "latents":
        broken.latents["video"][1, 2, 3] = bad
    elif field == "trace":
        tap = broken.trace["step.001/cond/velocity/video"]
        broken.trace["step.001/cond/velocity/video"] = type(tap)(**{**vars(tap), "finite": False})
    else:
        array = getattr(broken, field)
        array[(1, *(0 for _ in array.shape[1:]))] = bad
    result = judged(broken, sample())
    assert result.verdict == Verdict.FAIL
    assert result.reason.startswith("non-finite: ")
    assert {"latents": "'video'", "trace": "tap step.001/cond"}.get(field, f"{field} output 1") in result.reason
    assert result.metrics["ssim"].worst == 1  # still measured
    result = judged(sample(), broken)
    assert result.verdict == Verdict.INCOMPARABLE
    assert result.reason.startswith("the reference is non-finite: ")
    assert judged(broken, broken).verdict == Verdict.INCOMPARABLE


def test_many_broken_places_are_counted() -> None:
    broken = sample()
    for name, tap in broken.trace.items():
        broken.trace[name] = type(tap)(**{**vars(tap), "finite": False})
    assert judged(broken, sample()).reason.endswith("and 5 more")


def test_constant_frames() -> None:
    flat = sample()
    flat.frames[1, 2] = (10, 20, 30)
    result = judged(flat, sample())
    assert (result.verdict, result.reason) == (
        Verdict.FAIL,
        "constant colour, and not in the reference: output 1 frame 2",
    )
    for candidate in (sample(), flat):
        result = judged(candidate, flat)
        assert result.verdict == Verdict.INCOMPARABLE
        assert "the reference has a constant colour: output 1 frame 2" in result.reason
    flat.frames[1, 2, 0, 0, 0] = 11
    assert judged(flat, sample()).verdict == Verdict.PASS


def test_a_frame_with_one_flat_row_is_not_constant() -> None:
    ruled = sample()
    ruled.frames[:, :, 0] = 7
    assert judged(ruled, ruled).verdict == Verdict.PASS_EXACT


def test_a_frame_that_varies_only_in_one_channel_is_not_constant() -> None:
    tinted = sample()
    tinted.frames[0, 0, :, :, :2] = 7
    assert judged(tinted, tinted).verdict == Verdict.PASS_EXACT


def test_single_pixels_and_rows() -> None:
    dot = sample(size=1)
    assert judged(dot, dot).verdict == Verdict.INCOMPARABLE
    row = sample()
    row.frames = row.frames[:, :, :1]
    result = judged(with_noise(row, 2), row, {"mean_abs_diff": 2.0})
    assert result.verdict == Verdict.PASS
    assert "1x16; expected at least 7x7" in result.metrics["ssim"].note
    assert result.frames[0].metrics.keys() >= {"psnr", "mean_abs_diff"}
    assert "ssim" not in result.frames[0].metrics
    assert judged(with_noise(row, 2), row, {"ssim": 0.0}).verdict == Verdict.CALIBRATION_NEEDED


@pytest.mark.parametrize("axis", [0, 1])
def test_no_frames_is_not_a_pass(axis: int) -> None:
    empty = changed(sample(), frames=np.delete(sample().frames, [0, 1, 2][: 2 + axis], axis=axis))
    assert empty.frames.size == 0
    result = judged(empty, empty)
    assert result.verdict == Verdict.INCOMPARABLE
    assert "the reference has no frames" in result.reason


def test_limits_are_inclusive_and_hold_for_the_worst_frame() -> None:
    base, candidate = sample(), sample()
    candidate.frames[1, 1, :, :, :] += 3  # one frame of six
    result = judged(candidate, base, {"mean_abs_diff": 3.0})
    assert (result.verdict, result.reason) == (Verdict.PASS, "within 1 limit")
    metric = result.metrics["mean_abs_diff"]
    assert (metric.value, metric.worst, metric.limit, metric.ok) == (0.5, 3.0, 3.0, True)
    below = float(np.nextafter(3.0, 0))
    result = judged(candidate, base, {"mean_abs_diff": below})
    assert result.verdict == Verdict.FAIL
    assert result.reason == f"mean_abs_diff is 3.0, not <= {below:.6g} (output 1 frame 1)"
    assert result.metrics["mean_abs_diff"].ok is False
    worst = result.metrics["ssim"].worst
    assert worst is not None
    assert judged(candidate, base, {"ssim": worst}).verdict == Verdict.PASS
    result = judged(candidate, base, {"ssim": float(np.nextafter(worst, 2))})
    assert result.verdict == Verdict.FAIL
    assert f"ssim is {worst!r}, not >= " in result.reason


def test_one_damaged_output_of_a_latent_is_not_averaged_away() -> None:
    base, candidate = sample(outputs=2), sample(outputs=2)
    candidate.latents["video"][1] *= 1.1
    result = judged(candidate, base, {"latents.rel_l2": 0.09})
    assert result.metrics["latents.rel_l2"].worst == pytest.approx(0.1, rel=1e-5)
    assert result.metrics["latents.norm_error"].worst == pytest.approx(0.1, rel=1e-5)
    assert result.metrics["latents.rel_l2"].value == pytest.approx(0.1 / 4, rel=1e-5)
    assert result.latents["video"].rel_l2 < 0.09
    assert result.reason == "latents.rel_l2 is 0.1, not <= 0.09 (latents 'video' output 1)"


def test_violations_come_worst_first() -> None:
    limits = {"mean_abs_diff": 9.0, "max_abs_diff": 1.0, "psnr": 10.0, "ssim": 0.999}
    result = judged(with_noise(sample(), 20), sample(), limits)
    assert result.verdict == Verdict.FAIL
    assert [part.split()[0] for part in result.reason.split("; ")] == ["max_abs_diff", "mean_abs_diff", "ssim"]
    assert result.metrics["psnr"].ok is True


def test_missing_data_is_never_a_pass() -> None:
    silent, noisy = sample(audio=False), with_noise(sample(audio=False), 1)
    for limits, words in (
        ({"clip": 0.9}, "clip (no CLIP weights were given"),
        ({"audio.correlation": 0.9}, "audio.correlation (neither side has audio)"),
        ({"ssimm": 0.9}, "ssimm (no such metric)"),
    ):
        result = judged(noisy, silent, {"mean_abs_diff": 255.0, **limits})
        assert result.verdict == Verdict.CALIBRATION_NEEDED
        assert words in result.reason
        (name,) = limits
        assert (result.metrics[name].limit, result.metrics[name].ok) == (0.9, None)
        assert result.metrics[name].note
        both = judged(noisy, silent, {"mean_abs_diff": 0.0, **limits})
        assert both.verdict == Verdict.FAIL  # what is proven is said, and so is what is missing
        assert words in both.reason


def test_audio_is_judged_by_channel() -> None:
    base, candidate = sample(), sample()
    assert candidate.audio is not None
    candidate.audio[1, 0] *= -1
    result = judged(candidate, base, {"audio.correlation": 0.9, "audio.rms_db": 0.0})
    assert result.reason == "audio.correlation is -1, not >= 0.9 (output 1 channel 0)"
    assert result.metrics["audio.correlation"].value == pytest.approx(0.5)


def test_latents_of_another_dtype_are_compared_but_not_exact() -> None:
    base = sample()
    wide = changed(base, latents={name: value.double() for name, value in base.latents.items()})
    result = judged(wide, base, {"latents.rel_l2": 0.0})
    assert result.verdict == Verdict.PASS
    assert not result.latents["video"].hash_equal


@settings(max_examples=20)
@given(order=st.permutations(range(5)), seed=st.integers(0, 1000))
def test_the_order_of_frames_does_not_change_the_numbers(order: list[int], seed: int) -> None:
    reference = sample(seed, outputs=1, frames=5, audio=False)
    candidate = with_noise(reference, 9, seed)
    straight = judged(candidate, reference)
    mixed = judged(
        changed(candidate, frames=candidate.frames[:, order]), changed(reference, frames=reference.frames[:, order])
    )
    still = [name for name in straight.metrics if REGISTRY[name].kind != "motion"]
    for name in still:
        metric = straight.metrics[name]
        assert mixed.metrics[name].worst == metric.worst
        if metric.value is not None:
            assert mixed.metrics[name].value == pytest.approx(metric.value, rel=1e-12)
    for i, frame in enumerate(straight.frames):
        other = mixed.frames[order.index(i)].metrics
        assert all(other[name] == value for name, value in frame.metrics.items() if name in still)


@settings(max_examples=15)
@given(levels=st.integers(1, 30), loosened=st.floats(0, 20))
def test_a_looser_limit_never_turns_a_pass_into_a_failure(levels: int, loosened: float) -> None:
    reference = sample(audio=False)
    candidate = with_noise(reference, levels)
    metrics = judged(candidate, reference).metrics
    for name in ("psnr", "mean_abs_diff", "ssim"):
        worst = metrics[name].worst
        assert worst is not None
        up = 1 if REGISTRY[name].better == "lower" else -1
        assert judged(candidate, reference, {name: worst + up * loosened}).verdict == Verdict.PASS
        assert judged(candidate, reference, {name: worst - up * (loosened + 1e-6)}).verdict == Verdict.FAIL


def test_nothing_is_changed_by_comparing() -> None:
    a, b = sample(1), sample(2)
    frames, latent = a.frames.copy(), a.latents["video"].clone()
    judged(a, b)
    assert np.array_equal(a.frames, frames)
    assert torch.equal(a.latents["video"], latent)


def test_a_given_frame_is_not_measured() -> None:
    base = sample(frames=3)
    bad_input = changed(base, frames=base.frames.copy())
    bad_input.frames[:, 0] ^= 64  # far off, but in the frame that the case gives
    limits = {"mean_abs_diff": 0.0}
    assert compare(bad_input, base, limits=limits).verdict == Verdict.FAIL
    result = compare(bad_input, base, limits=limits, given_frames=(0,))
    assert result.verdict == Verdict.PASS
    assert {frame.index for frame in result.frames} == {1, 2}
    bad_output = changed(base, frames=base.frames.copy())
    bad_output.frames[1, 1] ^= 64
    assert compare(bad_output, base, limits=limits, given_frames=(0,)).verdict == Verdict.FAIL


def test_motion_is_measured_from_the_second_frame_on() -> None:
    base, candidate = sample(frames=3), sample(frames=3)
    candidate.frames[1, 2] = candidate.frames[1, 1]  # frozen
    result = compare(candidate, base, limits={"motion_diff": 0.0}, given_frames=(0,))
    moved = np.abs(base.frames[1, 2].astype(int) - base.frames[1, 1]).mean()
    assert result.metrics["motion_diff"].worst == pytest.approx(moved, rel=1e-12)
    assert "(output 1 frame 2)" in result.reason
    shown = {(frame.batch, frame.index): frame.metrics for frame in compare(candidate, base, limits=None).frames}
    assert [b_f for b_f, metrics in shown.items() if "motion_diff" in metrics] == [(0, 1), (0, 2), (1, 1), (1, 2)]
    still = sample(frames=1)
    alone = judged(with_noise(still, 1), still, {"motion_diff": 1.0})
    assert alone.verdict == Verdict.CALIBRATION_NEEDED
    assert "motion_diff (neither side has a second frame)" in alone.reason


def test_stereo_needs_two_channels() -> None:
    base = sample()
    assert base.audio is not None
    mono = changed(base, audio=base.audio[:, :1])
    louder = changed(mono, audio=mono.audio * 2)
    assert (
        "audio.side_correlation (neither side has a second channel)"
        in judged(louder, mono, {"audio.side_correlation": 0.9}).reason
    )
    swapped = changed(base, audio=base.audio[:, ::-1].copy())
    assert judged(swapped, base).metrics["audio.side_correlation"].worst == pytest.approx(-1)


def test_large_samples_are_measured_the_same_in_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    base = sample(frames=5, size=70)
    candidate = with_noise(base, 9)
    alone = judged(candidate, base)
    monkeypatch.setattr(measure, "THREADS_FROM", 0)
    together = judged(candidate, base)
    assert together == alone


def test_a_limit_just_below_one_does_not_read_as_one() -> None:
    base = sample()
    reason = compare(with_noise(base, 3), base, limits={"ssim": 1 - 2.5e-7}).reason
    assert "not >= 1 - 2.5e-07" in reason
    assert "ssim is 0." in reason
