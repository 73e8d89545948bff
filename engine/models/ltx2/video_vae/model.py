"""The video VAE and what callers do with it: encode, decode, normalise, denormalise.

Source: the layout and arithmetic of ``AutoencoderKLLTX2Video`` in diffusers 0.42.
Legend: B batch, C channels, F frames, H rows, W columns.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from torch import nn

from conformance.errors import bad_field
from engine.models.ltx2 import weights
from engine.models.ltx2.video_vae.config import VideoVAEConfig
from engine.models.ltx2.video_vae.decoder import Decoder
from engine.models.ltx2.video_vae.encoder import Encoder
from engine.models.ltx2.video_vae.tiling import Spread, Tiling, check_tiling, one_by_one, tiled


class VideoVAE(nn.Module):
    """Encoder, decoder and the statistics of each latent channel, in the dtype of the weights."""

    latents_mean: torch.Tensor
    latents_std: torch.Tensor

    def __init__(self, config: VideoVAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.register_buffer("latents_mean", torch.empty(config.latent_channels))
        self.register_buffer("latents_std", torch.empty(config.latent_channels))

    @property
    def dtype(self) -> torch.dtype:
        return self.latents_mean.dtype


def load(folder: Path, dtype: torch.dtype, device: torch.device) -> VideoVAE:
    """The VAE of ``folder`` (``config.json`` and safetensors). InputError when it cannot be used."""
    return weights.load(partial(VideoVAE, VideoVAEConfig.load(folder)), folder, dtype, device)


def encode(vae: VideoVAE, pixels_BCFHW: torch.Tensor) -> torch.Tensor:
    """Pixels [B,3,F,H,W] in [-1,1], of the VAE's dtype -> means of the latents, not normalised, same dtype.

    InputError when F is not a multiple of the temporal ratio plus 1, or H or W none of the spatial ratio.
    """
    config, shape = vae.config, tuple(pixels_BCFHW.shape)
    time, space = config.temporal_compression_ratio, config.spatial_compression_ratio
    if (
        len(shape) != 5
        or 0 in shape
        or shape[1] != config.in_channels
        or shape[2] % time != 1 % time
        or shape[3] % space
        or shape[4] % space
    ):
        expected = f"[B, {config.in_channels}, {time}*k + 1, {space}*m, {space}*n]"
        raise bad_field("video VAE", "pixels", shape, f"a shape {expected}")
    return vae.encoder(pixels_BCFHW)


def decode(
    vae: VideoVAE, latents_BCFHW: torch.Tensor, tiling: Tiling | None, spread: Spread = one_by_one
) -> torch.Tensor:
    """Denormalised latents [B,C,F,H,W] of the VAE's dtype -> pixels around [-1,1], same dtype; None: in one piece.

    spread: who decodes the tiles.
    InputError when the shape does not fit, and when latents or a tile have less than two rows or columns where
    the decoder pads by reflection.
    """
    config, shape = vae.config, tuple(latents_BCFHW.shape)
    if len(shape) != 5 or 0 in shape or shape[1] != config.latent_channels:
        raise bad_field("video VAE", "latents", shape, f"a shape [B, {config.latent_channels}, F, H, W]")
    if tiling is not None:
        check_tiling(tiling, config, (shape[2], shape[3], shape[4]))
        return tiled(vae.decoder, latents_BCFHW, tiling, config, spread)
    if config.decoder_spatial_padding_mode == "reflect" and min(shape[3:]) < 2:
        raise bad_field("video VAE", "latents", shape, "at least two rows and columns, to be padded by reflection")
    return vae.decoder(latents_BCFHW)


def normalise(vae: VideoVAE, latents_BCFHW: torch.Tensor) -> torch.Tensor:
    """(latents - mean) * scaling factor / std by channel, in the latents' dtype, each step rounded."""
    mean, std = _statistics(vae, latents_BCFHW)
    return (latents_BCFHW - mean) * vae.config.scaling_factor / std


def denormalise(vae: VideoVAE, latents_BCFHW: torch.Tensor) -> torch.Tensor:
    """latents * std / scaling factor + mean by channel, in the latents' dtype, each step rounded."""
    mean, std = _statistics(vae, latents_BCFHW)
    return latents_BCFHW * std / vae.config.scaling_factor + mean


def _statistics(vae: VideoVAE, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    mean, std = (stat.view(1, -1, 1, 1, 1).to(like) for stat in (vae.latents_mean, vae.latents_std))
    return mean, std
