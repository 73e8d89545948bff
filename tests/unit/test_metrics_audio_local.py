"""Metrics of pieces and channels of sound, against definitions written out here."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance.errors import InputError
from conformance.metrics import REGISTRY, AudioPair, StereoPair

RATE = 16000
NAMES = ["audio.window_error", "audio.window_level_db", "audio.peak_db", "audio.clipped_share"]


def wave(seed: int, samples: int = 1600) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def value(name: str, a: np.ndarray, b: np.ndarray, rate: int = RATE) -> float:
    return REGISTRY[name].function(AudioPair(a, b, rate))


def side(a: list[np.ndarray], b: list[np.ndarray]) -> float:
    return REGISTRY["audio.side_correlation"].function(StereoPair(np.stack(a), np.stack(b), RATE))


def rms(values: list[float]) -> float:
    return math.sqrt(sum(v * v for v in values) / len(values))


def pieces(signal: list[float], length: int) -> list[list[float]]:
    """One after the other, and one that reaches the end."""
    length = min(length, len(signal))
    found = [signal[i : i + length] for i in range(0, len(signal) - length + 1, length)]
    return [*found, signal[len(signal) - length :]]


@pytest.mark.parametrize(("samples", "rate"), [(1, RATE), (79, RATE), (80, RATE), (81, RATE), (1000, RATE), (50, 100)])
def test_by_their_formulas(samples: int, rate: int) -> None:
    a, b = wave(1, samples), wave(2, samples)
    length = max(1, round(0.005 * rate))
    mine, theirs = (pieces([float(v) for v in each], length) for each in (a, b))
    errors = [rms([p - q for p, q in zip(one, two, strict=True)]) for one, two in zip(mine, theirs, strict=True)]
    levels = [abs(20 * math.log10(max(rms(p), 1e-3) / max(rms(q), 1e-3))) for p, q in zip(mine, theirs, strict=True)]
    peaks = [max(abs(float(v)) for v in each) for each in (a, b)]
    shares = [
        sum(abs(float(v)) >= 0.999 * peak for v in each) / samples for each, peak in zip((a, b), peaks, strict=True)
    ]
    assert value("audio.window_error", a, b, rate) == pytest.approx(max(errors) / rms([float(v) for v in b]), rel=1e-9)
    assert value("audio.window_level_db", a, b, rate) == pytest.approx(max(levels), rel=1e-9, abs=1e-12)
    assert value("audio.peak_db", a, b, rate) == pytest.approx(abs(20 * math.log10(peaks[0] / peaks[1])), rel=1e-9)
    assert value("audio.clipped_share", a, b, rate) == pytest.approx(abs(shares[0] - shares[1]), abs=1e-12)


def test_side_correlation_by_its_formula() -> None:
    a, b = [wave(1), wave(2), wave(3)], [wave(4), wave(5), wave(6)]
    found = []
    for c in (0, 1):
        p, q = (each[c].astype(float) - each[c + 1] for each in (a, b))
        found.append((p * q).sum() / math.sqrt((p * p).sum() * (q * q).sum()))
    assert side(a, b) == pytest.approx(min(found), rel=1e-9)
    assert side([each[:900] for each in a], b) == pytest.approx(side([each[:900] for each in a], [x[:900] for x in b]))


def test_a_swap_of_nearly_equal_channels_shows_in_their_difference() -> None:
    middle, width = wave(1), 0.01 * wave(2)
    left, right = middle + width, middle - width
    assert REGISTRY["audio.correlation"].function(AudioPair(right, left, RATE)) > 0.999
    assert side([right, left], [left, right]) == pytest.approx(-1)
    assert side([left, right], [left, right]) == 1


def test_channels_without_a_difference() -> None:
    same, rounded = [wave(1), wave(1)], [wave(1), wave(1) * np.float32(1 + 1e-6)]
    assert side(same, rounded) == side(rounded, same) == side(same, same) == 1
    assert side(same, [wave(1), wave(2)]) == side([wave(1), wave(2)], same) == 0
    broken = [wave(1), wave(2)]
    broken[0][5] = math.nan
    assert math.isnan(side(broken, [wave(1), wave(2)]))
    whole = [wave(1), wave(2), wave(3)]
    assert math.isnan(side([*whole[:2], broken[0]], whole))  # NaN is worse than any number
    assert side([whole[1], whole[0], whole[0] + 2 * (whole[2] - whole[1])], whole) == -1


def test_a_gap_a_click_and_a_cut() -> None:
    base = wave(7, 16000)
    gap, click, cut = base.copy(), base.copy(), base.clip(-0.15, 0.15)
    gap[8000:8160] = 0
    click[5000] += 3
    assert value("audio.window_level_db", gap, base) > 35
    assert value("audio.window_error", gap, base) == pytest.approx(1, abs=0.3)
    assert value("audio.window_error", click, base) > 3
    assert value("audio.peak_db", cut, base) > 5
    assert value("audio.clipped_share", cut, base) > 0.05
    assert value("audio.clipped_share", (4 * base).clip(-1, 1), base) > 0.005  # whatever the level
    assert REGISTRY["audio.correlation"].function(AudioPair(gap, base, RATE)) > 0.99


def test_silence() -> None:
    silence, base = np.zeros(1600, np.float32), wave(8)
    for name in NAMES:
        assert value(name, silence, silence) == 0
        with pytest.raises(InputError, match="expected at least 1"):
            value(name, silence[:0], base)
    assert value("audio.window_error", base, silence) == value("audio.peak_db", base, silence) == math.inf
    assert value("audio.peak_db", silence, base) == math.inf
    assert value("audio.window_error", silence, base) > 1
    hiss = (1e-5 * base).astype(np.float32)
    assert value("audio.window_level_db", hiss, silence) == 0  # both are silent


@pytest.mark.parametrize("name", NAMES)
def test_nan_stays_nan(name: str) -> None:
    broken = wave(9)
    broken[700] = math.nan
    assert math.isnan(value(name, broken, wave(9)))


DAMAGE: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "audio.window_error": lambda base, k: base + np.float32(0.1 * k) * (np.arange(len(base)) == 400),
    "audio.window_level_db": lambda base, k: base * np.where(np.arange(len(base)) // 160 == 3, 0.7**k, 1),
    "audio.peak_db": lambda base, k: base * 1.1**k,
    "audio.clipped_share": lambda base, k: base.clip(*(np.array([-1, 1]) * 0.6**k * np.abs(base).max())),
}


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), strength=st.integers(1, 4))
def test_identity_symmetry_growth(name: str, seed: int, strength: int) -> None:
    a, b = wave(seed), wave(seed + 1)
    assert value(name, a, a.copy()) == 0
    if name != "audio.window_error":  # that one is relative to the reference
        assert value(name, a, b) == pytest.approx(value(name, b, a), rel=1e-9)
    near, far = (value(name, DAMAGE[name](a, each), a) for each in (strength, strength + 3))
    assert 0 < near < far
