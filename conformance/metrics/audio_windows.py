"""Waveforms in short pieces, so that an average over a clip hides nothing."""

from __future__ import annotations

import numpy as np

from conformance.metrics.pairs import AudioPair

WINDOW_S = 0.005
SILENCE = 1e-3  # root mean square of a full scale of 1, -60 dB: below it two pieces are equally silent


def windows(pair: AudioPair) -> tuple[np.ndarray, np.ndarray]:
    """Both sides, float64 [windows, samples]: pieces of 5 ms one after the other. The last one reaches the end and
    may overlap the one before it. InputError when a side is empty."""
    return tuple(_pieces(side, max(1, round(WINDOW_S * pair.rate))) for side in pair.common)  # type: ignore[return-value]


def _pieces(wave_N: np.ndarray, length: int) -> np.ndarray:
    length = min(length, len(wave_N))
    starts = np.unique(np.append(np.arange(0, len(wave_N) - length + 1, length), len(wave_N) - length))
    return wave_N[starts[:, None] + np.arange(length)]


def rms(values: np.ndarray) -> np.ndarray:
    """Root mean square along the last axis."""
    return np.sqrt(np.square(values).mean(axis=-1))
