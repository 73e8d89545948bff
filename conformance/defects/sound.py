"""Damage to finished sound: what a broken vocoder, resampler or writer does.

Each function takes the waveforms float32 [B,C,N] and their rate in Hz and returns a damaged copy.
"""

from __future__ import annotations

import numpy as np


def audio_gain(audio_BCN: np.ndarray, rate: int) -> np.ndarray:
    """One decibel too loud."""
    return audio_BCN * np.float32(10 ** (1 / 20))


def audio_delay(audio_BCN: np.ndarray, rate: int) -> np.ndarray:
    """One millisecond late, after silence."""
    late = max(1, rate // 1000)
    return np.concatenate((np.zeros_like(audio_BCN[..., :late]), audio_BCN[..., :-late]), axis=-1)


def audio_channels_swapped(audio_BCN: np.ndarray, rate: int) -> np.ndarray:
    """The order of the channels reversed: left is right."""
    return audio_BCN[:, ::-1].copy()


def audio_dropout(audio_BCN: np.ndarray, rate: int) -> np.ndarray:
    """Ten milliseconds of silence in the middle, in every channel."""
    audio, length = audio_BCN.copy(), max(1, rate // 100)
    start = (audio.shape[-1] - length) // 2
    audio[..., start : start + length] = 0
    return audio


def audio_clipped(audio_BCN: np.ndarray, rate: int) -> np.ndarray:
    """Cut at half of the peak of each waveform."""
    limit = np.abs(audio_BCN).max(axis=-1, keepdims=True) / np.float32(2)
    return audio_BCN.clip(-limit, limit)
