"""Video VAEs in the engine and in diffusers: the tiny checkpoints, a third unlike both, the released layouts."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from diffusers import AutoencoderKLLTX2Video

from engine.models.ltx2.video_vae import model as video_vae
from reference_impl.diffusers_load import realigned
from reference_impl.tiny.build import cached

CPU = torch.device("cpu")
OTHER = "other"
MODELS = ("ltx-2", "ltx-2.3", OTHER)
# Every step kind up and down, other factors, mixed residuals, a causal decoder and an encoder that is not,
# borders the other way round, patches of two, statistics and a scaling factor that are not neutral.
OTHER_CONFIG: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 16,
    "block_out_channels": (16, 16, 32),
    "down_block_types": ("LTX2VideoDownBlock3D",) * 3,
    "layers_per_block": (1, 2, 1, 1),
    "spatio_temporal_scaling": (True, True, True),
    "downsample_type": ("temporal", "spatial", "spatiotemporal"),
    "decoder_block_out_channels": (16, 16, 32),
    "decoder_layers_per_block": (1, 1, 2, 1),
    "decoder_spatio_temporal_scaling": (True, True, True),
    "decoder_inject_noise": (False, False, False, False),
    "upsample_type": ("spatial", "temporal", "spatiotemporal"),
    "upsample_residual": (True, False, False),
    "upsample_factor": (4, 1, 2),
    "timestep_conditioning": False,
    "patch_size": 2,
    "patch_size_t": 1,
    "scaling_factor": 0.7,
    "encoder_causal": False,
    "decoder_causal": True,
    "encoder_spatial_padding_mode": "reflect",
    "decoder_spatial_padding_mode": "zeros",
    "spatial_compression_ratio": 8,
    "temporal_compression_ratio": 4,
}
_RELEASED: dict[str, Any] = {
    "layers_per_block": (4, 6, 6, 2, 2),
    "spatio_temporal_scaling": (True, True, True, True),
    "downsample_type": ("spatial", "temporal", "spatiotemporal", "spatiotemporal"),
    "down_block_types": ("LTX2VideoDownBlock3D",) * 4,
    "block_out_channels": (256, 512, 1024, 2048),
    "spatial_compression_ratio": 32,
    "temporal_compression_ratio": 8,
    "latent_channels": 128,
    "patch_size": 4,
    "encoder_causal": True,
    "decoder_causal": False,
    "scaling_factor": 1.0,
}
RELEASED: dict[str, dict[str, Any]] = {
    "ltx-2": OTHER_CONFIG
    | _RELEASED
    | {
        "decoder_block_out_channels": (256, 512, 1024),
        "decoder_layers_per_block": (5, 5, 5, 5),
        "upsample_type": ("spatiotemporal", "spatiotemporal", "spatiotemporal"),
        "upsample_residual": (True, True, True),
        "upsample_factor": (2, 2, 2),
        "encoder_spatial_padding_mode": "zeros",
        "decoder_spatial_padding_mode": "reflect",
    },
    "ltx-2.3": OTHER_CONFIG
    | _RELEASED
    | {
        "block_out_channels": (256, 512, 1024, 1024),
        "layers_per_block": (4, 6, 4, 2, 2),
        "decoder_block_out_channels": (256, 512, 512, 1024),
        "decoder_layers_per_block": (4, 6, 4, 2, 2),
        "decoder_spatio_temporal_scaling": (True, True, True, True),
        "decoder_inject_noise": (False, False, False, False, False),
        "upsample_type": ("spatiotemporal", "spatiotemporal", "temporal", "spatial"),
        "upsample_residual": (False, False, False, False),
        "upsample_factor": (2, 2, 1, 2),
        "encoder_spatial_padding_mode": "zeros",
        "decoder_spatial_padding_mode": "zeros",
    },
}
_folders: list[TemporaryDirectory[str]] = []


@cache
def folder(model: str) -> Path:
    if model != OTHER:
        return cached(model) / "vae"
    _folders.append(TemporaryDirectory())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        vae = AutoencoderKLLTX2Video(**OTHER_CONFIG)
        vae.latents_mean.normal_()
        vae.latents_std.uniform_(0.5, 2.0)
    vae.save_pretrained(_folders[-1].name)
    return Path(_folders[-1].name)


@cache
def engine_vae(model: str, dtype: torch.dtype) -> video_vae.VideoVAE:
    return video_vae.load(folder(model), dtype, CPU)


def diffusers_vae(model: str, dtype: torch.dtype) -> Any:
    """A fresh one each time: tiling is switched on in place."""
    vae = AutoencoderKLLTX2Video.from_pretrained(folder(model), dtype=dtype, low_cpu_mem_usage=False)
    return realigned(vae).eval().requires_grad_(False)


def draw(*shape: int, seed: int = 3) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
