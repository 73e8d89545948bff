"""Judging is fast without being approximate: scikit-image's values within 1e-9, and memory that does not grow."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from conformance.compare import compare
from conformance.generator import Sample
from conformance.metrics import REGISTRY, FramePair, bench, measure

Frames = tuple[np.ndarray, np.ndarray]


def flat(level: int, height: int = 40, width: int = 45) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def checks(period: int) -> np.ndarray:
    y, x = np.indices((40, 45))
    return np.repeat((255 * ((y // period + x // period) % 2)).astype(np.uint8)[..., None], 3, axis=2)


def dot(level: int) -> np.ndarray:
    frame = flat(255 - level)
    frame[20, 20] = level
    return frame


ADVERSARIAL: dict[str, Frames] = {
    "black against white": (flat(0), flat(255)),
    "one level apart": (flat(254), flat(255)),
    "equal": (checks(1), checks(1)),
    "inverse checks": (checks(1), 255 - checks(1)),
    "coarse checks": (checks(7), np.roll(checks(7), 3, axis=1)),
    "one pixel": (dot(255), flat(0)),
    "one pixel of white": (dot(0), flat(255)),
    "a ramp": (np.broadcast_to(np.arange(45, dtype=np.uint8)[:, None] * 5, (40, 45, 3)).copy(), flat(128)),
    "one window": (checks(2)[:7, :7], flat(9, 7, 7)),
    "a row of windows": (checks(2)[:7], flat(200, 7, 45)),
}


def exact(a: np.ndarray, b: np.ndarray) -> None:
    pair = FramePair(a, b)
    found = {name: REGISTRY[name].function(pair) for name in ("ssim", "psnr", "mean_abs_diff")}
    mean, map_HW3 = structural_similarity(a, b, channel_axis=-1, data_range=255, full=True)
    inside = map_HW3[3:-3, 3:-3].mean(axis=-1)
    tiles = [
        inside[y : y + 32, x : x + 32].mean()
        for y in range(0, a.shape[0] - 6, 32)
        for x in range(0, a.shape[1] - 6, 32)
    ]
    assert found["ssim"] == pytest.approx(mean, abs=1e-9)
    assert REGISTRY["tile_ssim"].function(pair) == pytest.approx(min(tiles), abs=1e-9)
    with np.errstate(divide="ignore"):
        assert found["psnr"] == pytest.approx(peak_signal_noise_ratio(b, a, data_range=255), abs=1e-9)
    assert found["mean_abs_diff"] == pytest.approx(np.abs(a.astype(float) - b).mean(), abs=1e-9)


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_adversarial_frames(name: str) -> None:
    exact(*ADVERSARIAL[name])


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    height=st.integers(7, 90),
    width=st.integers(7, 90),
    low=st.integers(0, 250),
    spread=st.integers(1, 256),
)
def test_random_frames(seed: int, height: int, width: int, low: int, spread: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.integers(low, min(256, low + spread), (2, height, width, 3)).astype(np.uint8)
    exact(a, b)


def test_views_and_memory_maps_are_measured_like_copies(tmp_path: Path) -> None:
    frames = np.random.default_rng(3).integers(0, 256, (2, 70, 90, 3), dtype=np.uint8)
    mapped = np.memmap(tmp_path / "frames", np.uint8, "w+", shape=frames.shape)
    mapped[:] = frames
    views = (np.asfortranarray(frames[0, :, ::2]), mapped[1, :, ::2])
    for name, metric in REGISTRY.items():
        if metric.kind == "frame" and name != "clip":
            copies = FramePair(*(np.ascontiguousarray(view) for view in views))
            assert metric.function(FramePair(*views)) == metric.function(copies)


def peak_of_judging(frames: int) -> float:
    rng = np.random.default_rng(0)
    sides = rng.integers(0, 256, (2, 1, frames, 128, 128, 3), dtype=np.uint8)
    mine, theirs = (Sample(frames=s, frames_float=None, audio=None, audio_rate=None, latents={}) for s in sides)
    compare(mine, theirs, limits=None)  # imports
    tracemalloc.start()
    try:
        compare(mine, theirs, limits=None)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("threads_from", [0, 2**40])
def test_memory_does_not_grow_with_the_frames(monkeypatch: pytest.MonkeyPatch, threads_from: int) -> None:
    monkeypatch.setattr(measure, "THREADS_FROM", threads_from)
    monkeypatch.setattr(measure, "MAX_THREADS", 2)
    few, many = peak_of_judging(6), peak_of_judging(24)
    assert many < few + 6 * 128 * 128 * 3  # 18 frames more would be three times that


def test_the_benchmark_runs_and_agrees(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["bench", "--frames", "3", "--size", "64x48"])
    assert bench.main() == 0
    assert "3 frames of 64x48" in capsys.readouterr().out
    monkeypatch.setattr(bench, "TOLERANCE", -1.0)
    assert bench.main() == 1
