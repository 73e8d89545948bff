"""The packages' latent upsampler with the weights of a diffusers folder, between two stages. Version 1.0.0."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from conformance.errors import InputError
from conformance.generator import Probe
from conformance.jsonio import read_json

FOLDER = "latent_upsampler"
# official key -> that of the diffusers folder
_KEYS = {name: name for name in ("in_channels", "mid_channels", "num_blocks_per_stage", "dims")} | {
    "spatial_upsample": "spatial_upsample",
    "temporal_upsample": "temporal_upsample",
    "spatial_scale": "rational_spatial_scale",
    "rational_resampler": "use_rational_resampler",
}


def upsampler_config(folder: Path) -> dict[str, Any]:
    """The configuration that an official upsampler file holds. InputError when the folder's is not complete."""
    path = folder / FOLDER / "config.json"
    stored = read_json(path)
    for name in _KEYS.values():
        if name not in stored:  # the defaults of the two layouts differ
            raise InputError(f"{path}: {name!r} is missing")
    return {official: stored[name] for official, name in _KEYS.items()}


def upsample(latent_BCFHW: torch.Tensor, encoder: Any, upsampler: Any, probe: Probe) -> torch.Tensor:
    """Normalised latents with twice the rows and columns, by ``upsample_video``; tapped without normalisation."""
    from ltx_core.model.upsampler import upsample_video

    handles = (
        upsampler.register_forward_pre_hook(lambda module, args: probe.tap("upsample/input", args[0])),
        upsampler.register_forward_hook(lambda module, args, output: probe.tap("upsample/output", output)),
    )
    try:
        return upsample_video(latent=latent_BCFHW[:1], video_encoder=encoder, upsampler=upsampler)
    finally:
        for handle in handles:
            handle.remove()
