"""A case and samples for tests of the ground-truth store."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from conformance.case import Case
from conformance.generator import HANDSHAKE, Sample, Tap
from conformance.matrix import all_cases

CASE: Case = replace(all_cases()[0], numerics="diffusers")
CHECKPOINT = {"transformer": "a" * 64, "vae": "b" * 64}
LEDGER: dict[str, Any] = {
    "versions": {"torch": "2.13.0+cpu", "diffusers": "0.42.1", "transformers": "5.23.0", "numpy": "2.4.6"},
    "device": {"kind": "cpu", "name": "cpu"},
}
PUT: dict[str, Any] = {
    "kind": "diffusers",
    "generator": "diffusers",
    "checkpoint": CHECKPOINT,
    "ledger": LEDGER,
    "reason": "first reference",
}
GET: dict[str, Any] = {"kind": "diffusers", "checkpoint": CHECKPOINT, "ledger": LEDGER}


def sample(
    seed: int = 0, shape: tuple[int, int, int, int] = (1, 2, 4, 6), dtype: torch.dtype = torch.float32
) -> Sample:
    """Random content. shape: B, F, H, W."""
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    latents = {name: torch.randn(2, 3, generator=generator).to(dtype) for name in ("video", "audio")}
    tensors = {f"latents/final/{name}": value for name, value in latents.items()}
    tensors |= {"step.000/latents/video": latents["video"] * 2, "noise/video": latents["video"] * 3}
    return Sample(
        frames=rng.integers(0, 256, (*shape, 3), dtype=np.uint8),
        frames_float=None,
        audio=rng.standard_normal((shape[0], 2, 50)).astype(np.float32),
        audio_rate=24000,
        latents=latents,
        trace={name: Tap.of(value) for name, value in tensors.items()},
        tensors=tensors,
        resolved={**dict.fromkeys(HANDSHAKE, 1), "sigmas": (1.0, 0.5), "noise": {"video": "00"}},
        ledger={"kernels": {"rope": "eager"}},
        shared=("vae",),
    )
