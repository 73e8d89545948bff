"""Small samples for tests of the comparator."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch

from conformance.generator import Probe, Sample


def sample(seed: int = 0, *, outputs: int = 2, frames: int = 3, size: int = 16, audio: bool = True) -> Sample:
    """Random frames [B,F,S,S,3], audio [B,2,2000], latents [B,6,8] and a trace of two steps."""
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    video, sound = (torch.randn(outputs, 6, 8, generator=generator) for _ in range(2))
    pixels = rng.integers(60, 190, (outputs, frames, size, size, 3), dtype=np.uint8)
    probe = Probe()
    for step in range(2):
        probe.tap(f"step.{step:03d}/latents/video", video + step)
        probe.tap(f"step.{step:03d}/latents/audio", sound + step)
        probe.tap(f"step.{step:03d}/cond/velocity/video", video * (step + 2))
    probe.tap("latents/final/video", video)
    probe.tap("latents/final/audio", sound)
    return Sample(
        frames=pixels,
        frames_float=(pixels / 255).astype(np.float32),
        audio=(0.1 * rng.standard_normal((outputs, 2, 2000))).astype(np.float32) if audio else None,
        audio_rate=16000 if audio else None,
        latents={"video": video, "audio": sound},
        trace=probe.trace,
        tensors=probe.tensors,
    )


def changed(base: Sample, **values: Any) -> Sample:
    """A deep copy with some fields replaced."""
    other = copy.deepcopy(base)
    for name, value in values.items():
        setattr(other, name, value)
    return other


def with_noise(base: Sample, levels: int, seed: int = 1) -> Sample:
    """A copy whose pixels differ by at most ``levels`` (and everything else is equal)."""
    noise = np.random.default_rng(seed).integers(-levels, levels + 1, base.frames.shape)
    return changed(base, frames=(base.frames + noise).astype(np.uint8))
