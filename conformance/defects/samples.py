"""The battery of damage to finished output: what a gate must see in pixels, motion, sound and latents.

A defect takes a sample and returns a damaged copy; what it does not damage is shared, not copied. Latent defects
leave the pixels alone and pixel defects the latents, so that each is seen by its own metrics or by none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from conformance.defects import latents, motion, pixels, sound
from conformance.generator import Sample

Kind = Literal["pixels", "motion", "sound", "latents"]


@dataclass(frozen=True)
class SampleDefect:
    """damage: sample -> damaged copy, the same every time; defined where ``applies``. applies: False where the
    damage cannot exist (a frame too small, one frame alone, mono or no sound, no latents) or would change nothing."""

    kind: Kind
    damage: Callable[[Sample], Sample]
    applies: Callable[[Sample], bool]


def _pixels(function: pixels.Damage, height: int = 1, width: int = 1) -> SampleDefect:
    """Damage to every frame of at least ``height`` x ``width`` pixels."""

    def damage(sample: Sample) -> Sample:
        frames = np.empty_like(sample.frames)
        for index in np.ndindex(frames.shape[:2]):
            frames[index] = function(sample.frames[index])
        return replace(sample, frames=frames)

    def applies(sample: Sample) -> bool:
        if not sample.frames.size or sample.frames.shape[2] < height or sample.frames.shape[3] < width:
            return False
        return any(
            not np.array_equal(function(sample.frames[index]), sample.frames[index])
            for index in np.ndindex(sample.frames.shape[:2])
        )

    return SampleDefect("pixels", damage, applies)


def _motion(function: Callable[[np.ndarray], np.ndarray], frames: int) -> SampleDefect:
    """Damage to a video of at least ``frames`` frames."""

    def damage(sample: Sample) -> Sample:
        return replace(sample, frames=function(sample.frames))

    def applies(sample: Sample) -> bool:
        if not sample.frames.size or sample.frames.shape[1] < frames:
            return False
        return not np.array_equal(function(sample.frames), sample.frames)

    return SampleDefect("motion", damage, applies)


def _sound(function: Callable[[np.ndarray, int], np.ndarray], seconds: float = 0.0) -> SampleDefect:
    """Damage to sound of more than ``seconds``."""

    def damage(sample: Sample) -> Sample:
        assert sample.audio is not None
        assert sample.audio_rate is not None
        return replace(sample, audio=function(sample.audio, sample.audio_rate))

    def applies(sample: Sample) -> bool:
        if sample.audio is None or not sample.audio_rate or sample.audio.shape[-1] <= seconds * sample.audio_rate:
            return False
        return not np.array_equal(function(sample.audio, sample.audio_rate), sample.audio, equal_nan=True)

    return SampleDefect("sound", damage, applies)


def _latents(function: Callable[[torch.Tensor], torch.Tensor]) -> SampleDefect:
    """Damage to every packed stream."""

    def damage(sample: Sample) -> Sample:
        return replace(sample, latents={name: function(value) for name, value in sample.latents.items()})

    def applies(sample: Sample) -> bool:
        streams = sample.latents.values()
        if any(value.ndim != 3 or not value.numel() for value in streams):
            return False
        return any(not torch.equal(function(value), value) for value in streams)

    return SampleDefect("latents", damage, applies)


SAMPLE_DEFECTS: dict[str, SampleDefect] = {
    "black_block_64": _pixels(pixels.black_block_64, 65, 65),
    "black_block_1_64th": _pixels(pixels.black_block_1_64th, 8, 8),
    "seam": _pixels(pixels.seam, 1, 16),
    "grid_rows_8": _pixels(pixels.grid_rows_8, 16, 1),
    "grid_patch_16": _pixels(pixels.grid_patch_16, 32, 32),
    "blur_1": _pixels(pixels.blur_1),
    "shift_1px": _pixels(pixels.shift_1px),
    "roll_half": _pixels(pixels.roll_half, 16, 2),
    "noise_2": _pixels(pixels.noise(2)),
    "noise_4": _pixels(pixels.noise(4)),
    "noise_12": _pixels(pixels.noise(12)),
    "brighter_8": _pixels(pixels.brighter_8),
    "desaturated": _pixels(pixels.desaturated),
    "red_blue_swapped": _pixels(pixels.red_blue_swapped),
    "flipped": _pixels(pixels.flipped),
    "constant": _pixels(pixels.constant),
    "jpeg_75": _pixels(pixels.jpeg_75),
    "bad_frame_middle": _motion(motion.bad_frame_middle, 2),
    "frames_swapped": _motion(motion.frames_swapped, 3),
    "frozen_tail": _motion(motion.frozen_tail, 2),
    "audio_gain": _sound(sound.audio_gain),
    "audio_delay": _sound(sound.audio_delay, 0.002),
    "audio_channels_swapped": _sound(sound.audio_channels_swapped),
    "audio_dropout": _sound(sound.audio_dropout, 0.02),
    "audio_clipped": _sound(sound.audio_clipped),
    "latent_channel_bad": _latents(latents.latent_channel_bad),
    "latent_tokens_bad": _latents(latents.latent_tokens_bad),
    "latents_scaled_1_01": _latents(latents.latents_scaled_1_01),
    "latents_bf16": _latents(latents.latents_bf16),
}
