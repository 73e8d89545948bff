"""Damage to finished output: what a broken decoder, tile, kernel or codec does to pixels and sound.

Each function takes a reference sample and returns a damaged copy; the rest of the sample is shared, not copied.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from scipy.ndimage import gaussian_filter, shift

from conformance.generator import Sample


def black_block(sample: Sample) -> Sample:
    """A black square of 1/64 of the area in the middle of every frame."""
    frames = sample.frames.copy()
    height, width = frames.shape[2:4]
    top, left = height * 7 // 16, width * 7 // 16
    frames[:, :, top : top + height // 8, left : left + width // 8] = 0
    return replace(sample, frames=frames)


def _filtered(sample: Sample, function: Callable[[np.ndarray], np.ndarray]) -> Sample:
    frames = np.rint(np.clip(function(sample.frames.astype(np.float64)), 0, 255)).astype(np.uint8)
    return replace(sample, frames=frames)


def blur(sample: Sample) -> Sample:
    """Gaussian blur of sigma 1 px: lost sharpness."""
    return _filtered(sample, lambda frames: gaussian_filter(frames, (0, 0, 1, 1, 0)))


def shift_1px(sample: Sample) -> Sample:
    """Everything one pixel to the right: an off-by-one in positions or patches."""
    return _filtered(sample, lambda frames: shift(frames, (0, 0, 0, 1, 0), order=0, mode="nearest"))


def noise_4(sample: Sample) -> Sample:
    """Gaussian noise of sigma 4 levels."""
    return _filtered(sample, lambda frames: frames + np.random.default_rng(0).normal(0, 4, frames.shape))


def audio_delay(sample: Sample) -> Sample:
    """Sound one millisecond late."""
    if sample.audio is None or sample.audio_rate is None:
        return sample
    late = sample.audio_rate // 1000
    delayed = np.concatenate((np.zeros_like(sample.audio[..., :late]), sample.audio[..., :-late]), axis=-1)
    return replace(sample, audio=delayed)


def audio_gain(sample: Sample) -> Sample:
    """Sound one decibel too loud."""
    return sample if sample.audio is None else replace(sample, audio=sample.audio * np.float32(10 ** (1 / 20)))


SAMPLE_DEFECTS: dict[str, Callable[[Sample], Sample]] = {
    function.__name__: function for function in (black_block, blur, shift_1px, noise_4, audio_delay, audio_gain)
}
