"""Audio metrics against definitions written out here."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance.errors import InputError
from conformance.metrics import REGISTRY, AudioPair

RATE = 16000
distance, correlation, rms_db, duration = (
    REGISTRY[f"audio.{name}"].function for name in ("log_spectral_distance", "correlation", "rms_db", "duration_s")
)


def wave(seed: int, samples: int) -> np.ndarray:
    return (0.2 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def pair(a: np.ndarray, b: np.ndarray) -> AudioPair:
    return AudioPair(a, b, RATE)


def log_power(wave_N: np.ndarray) -> np.ndarray:
    """Direct discrete Fourier transform of every Hann window, bin by bin, in dB over the silence floor."""
    n = np.arange(1024)
    hann = np.array([0.5 * (1 - math.cos(2 * math.pi * k / 1024)) for k in range(1024)])
    kernel = np.exp(-2j * np.pi * np.outer(np.arange(513), n) / 1024)
    rows = []
    for start in range(0, max(len(wave_N) - 1024, 0) + 256, 256):
        window = np.zeros(1024)
        part = wave_N[start : start + 1024].astype(np.float64)
        window[: len(part)] = part
        rows.append(10 * np.log10(np.abs(kernel @ (window * hann)) ** 2 + 1e-10 * 256**2))
    return np.array(rows)


@pytest.mark.parametrize("samples", [1, 500, 1024, 1025, 1280, 3000])
def test_log_spectral_distance_by_its_formula(samples: int) -> None:
    a, b = wave(1, samples), wave(2, samples)
    expected = np.mean([math.sqrt(np.mean((p - q) ** 2)) for p, q in zip(log_power(a), log_power(b), strict=True)])
    assert distance(pair(a, b)) == pytest.approx(expected, rel=1e-9)


def test_log_spectral_distance_of_a_gain_is_the_gain() -> None:
    a = wave(3, 4096)
    assert distance(pair(2 * a, a)) == pytest.approx(20 * math.log10(2), abs=1e-3)
    silence = np.zeros(4096, np.float32)
    assert distance(pair(silence, silence)) == 0
    assert 60 < distance(pair(a, silence)) < 120


def test_correlation_by_its_formula() -> None:
    a, b = wave(4, 400), wave(5, 400) + np.float32(0.5)
    assert correlation(pair(a, b)) == pytest.approx(np.corrcoef(a.astype(float), b.astype(float))[0, 1], rel=1e-9)
    assert correlation(pair(-a, a)) == pytest.approx(-1)


def test_correlation_without_variation() -> None:
    flat, other = np.full(300, 0.1, np.float32), wave(6, 300)
    assert correlation(pair(flat, flat)) == 1
    assert correlation(pair(flat, other)) == 0
    assert correlation(pair(other, flat)) == 0
    assert correlation(pair(flat, 2 * flat)) == 0


def test_rms_by_its_formula() -> None:
    a, b = wave(7, 100), wave(8, 100)
    rms = [math.sqrt(sum(float(v) ** 2 for v in side) / 100) for side in (a, b)]
    assert rms_db(pair(a, b)) == pytest.approx(abs(20 * math.log10(rms[0] / rms[1])), rel=1e-9)
    assert rms_db(pair(a / 2, a)) == pytest.approx(20 * math.log10(2))
    silence = np.zeros(100, np.float32)
    assert rms_db(pair(silence, silence)) == 0
    assert rms_db(pair(a, silence)) == rms_db(pair(silence, a)) == math.inf


def test_lengths() -> None:
    a = wave(9, 3200)
    assert duration(pair(a, a)) == 0
    assert duration(pair(a[:1600], a)) == duration(pair(a, a[:1600])) == 0.1
    assert correlation(pair(a[:1600], a)) == 1  # the others look at the common part
    assert rms_db(pair(a[:1600], a)) == 0
    with pytest.raises(InputError, match="0 and 3200 samples"):
        correlation(pair(a[:0], a))


@pytest.mark.parametrize("function", [distance, correlation, rms_db])
def test_nan_stays_nan(function: object) -> None:
    assert callable(function)
    a = wave(10, 2000)
    broken = a.copy()
    broken[700] = math.nan
    assert math.isnan(function(pair(broken, a)))


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), samples=st.integers(2, 3000), factor=st.floats(1.5, 20))
def test_identity_symmetry_monotonicity(seed: int, samples: int, factor: float) -> None:
    a, b = wave(seed, samples), wave(seed + 1, samples)
    assert (distance(pair(a, a)), correlation(pair(a, a)), rms_db(pair(a, a))) == (0, 1, 0)
    for function in (distance, correlation, rms_db):
        assert function(pair(a, b)) == pytest.approx(function(pair(b, a)), rel=1e-9, abs=1e-12)
    louder, loudest = (a.astype(np.float64) * gain for gain in (1.2, 1.2 * factor))
    assert rms_db(pair(loudest, a)) > rms_db(pair(louder, a))
    assert distance(pair(loudest, a)) > distance(pair(louder, a))
