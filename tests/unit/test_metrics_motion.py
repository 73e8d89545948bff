"""Metrics of what happens from frame to frame, against definitions written out here."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance.metrics import REGISTRY, FramePair, MotionPair

MOTION = ["temporal_diff", "motion_diff"]


def image(seed: int, height: int = 9, width: int = 11) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def value(name: str, mine: tuple[np.ndarray, np.ndarray], theirs: tuple[np.ndarray, np.ndarray]) -> float:
    """Each side: the frame before, and the frame."""
    before, now = (FramePair(a, b) for a, b in zip(mine, theirs, strict=True))
    return REGISTRY[name].function(MotionPair(now, before))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 8), (40, 21)])
def test_by_their_formulas(height: int, width: int) -> None:
    a0, a1, b0, b1 = (image(seed, height, width) for seed in range(4))
    changes = [
        [int(y) - int(x) for x, y in zip(before.ravel(), now.ravel(), strict=True)]
        for before, now in ((a0, a1), (b0, b1))
    ]
    n = 3 * height * width
    expected = {
        "temporal_diff": sum(abs(p - q) for p, q in zip(*changes, strict=True)) / n,
        "motion_diff": abs(sum(map(abs, changes[0])) - sum(map(abs, changes[1]))) / n,
    }
    for name in MOTION:
        assert value(name, (a0, a1), (b0, b1)) == pytest.approx(expected[name], rel=1e-12)


def test_extremes_do_not_overflow() -> None:
    black, white = np.zeros((300, 300, 3), np.uint8), np.full((300, 300, 3), 255, np.uint8)
    assert value("temporal_diff", (black, white), (white, black)) == 510
    assert value("motion_diff", (black, white), (white, white)) == 255


def test_frozen_swapped_and_constant_errors() -> None:
    frames = [image(seed) // 2 for seed in range(3)]
    moved = np.abs(frames[1].astype(int) - frames[0]).mean()
    assert value("motion_diff", (frames[0], frames[0]), (frames[0], frames[1])) == pytest.approx(moved)
    assert value("temporal_diff", (frames[0], frames[2]), (frames[0], frames[1])) > 10
    brighter = [frame + np.uint8(8) for frame in frames]
    for name in MOTION:  # an error that stays the same is not one of motion
        assert value(name, (brighter[0], brighter[1]), (frames[0], frames[1])) == 0


@pytest.mark.parametrize("name", MOTION)
@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), strength=st.integers(1, 20))
def test_identity_symmetry_and_growth(name: str, seed: int, strength: int) -> None:
    before, now = image(seed) // 2, image(seed + 1) // 2
    assert value(name, (before, now), (before.copy(), now.copy())) == 0
    other = (image(seed + 2), image(seed + 3))
    assert value(name, other, (before, now)) == pytest.approx(value(name, (before, now), other), rel=1e-12)
    still = np.full_like(before, 60)
    flicker = [still + np.uint8(level) for level in (strength, strength + 1)]
    near, far = (value(name, (still, each), (still, still)) for each in flicker)
    assert (near, far) == (strength, strength + 1)
