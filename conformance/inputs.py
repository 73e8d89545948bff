"""Inputs that the harness owns, so that no generator can differ in them by accident."""

from __future__ import annotations

import torch


def draw_noise(
    seed: int, video_BCFHW: tuple[int, ...], audio_BCLM: tuple[int, ...]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Initial noise, unpacked, fp32: one CPU generator seeded with ``seed``, video drawn before audio.

    Always on the CPU: a CUDA generator is another stream, and the case must mean the same on every device.
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    video = torch.randn(video_BCFHW, generator=generator, dtype=torch.float32)
    audio = torch.randn(audio_BCLM, generator=generator, dtype=torch.float32)
    return video, audio
