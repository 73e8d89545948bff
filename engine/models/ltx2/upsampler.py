"""Spatial upsampler of video latents: what stage two of a two-stage generation starts from.

Source: ``LTX2LatentUpsamplerModel`` of diffusers 0.42 and the pipeline around it; parameter names are that layout's.
Legend: B batch, C channels, F latent frames, H rows, W columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from conformance.errors import bad_field
from conformance.generator import Probe
from engine.configfile import parse
from engine.models.ltx2 import weights
from engine.models.ltx2.video_vae.model import VideoVAE, denormalise, normalise
from engine.numerics import Numerics

_GROUPS = 32
_BLUR = 5  # rows and columns of the binomial kernel
# Scale as a fraction: pixels are multiplied by the numerator, then one of every denominator is kept.
_FRACTIONS = {0.75: (3, 4), 1.5: (3, 2), 2.0: (2, 1), 4.0: (4, 1)}
# key -> (implemented value, value of an absent key), the latter being diffusers 0.42's default
_FIXED = {"dims": (3, 3), "spatial_upsample": (True, True), "temporal_upsample": (False, False)}


@dataclass(frozen=True, kw_only=True)
class UpsamplerConfig:
    """``latent_upsampler/config.json``; the scale is rational, or two where the resampler is not the rational one."""

    in_channels: int
    mid_channels: int
    num_blocks_per_stage: int
    rational_spatial_scale: float = 2.0
    use_rational_resampler: bool = True

    @classmethod
    def load(cls, folder: Path) -> UpsamplerConfig:
        """Read and check ``folder/config.json``. InputError names the file, the key and what was expected."""
        path = folder / "config.json"
        config = parse(cls, path, fixed=_FIXED)
        scales = tuple(_FRACTIONS) if config.use_rational_resampler else (2.0,)
        if config.rational_spatial_scale not in scales:
            raise bad_field(str(path), "rational_spatial_scale", config.rational_spatial_scale, f"one of {scales}")
        if config.mid_channels % _GROUPS:
            raise bad_field(str(path), "mid_channels", config.mid_channels, f"a multiple of {_GROUPS}")
        return config


class ResBlock(nn.Module):
    """silu(x + norm(conv(silu(norm(conv(x))))))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(width, width, 3, padding=1)
        self.norm1 = nn.GroupNorm(_GROUPS, width)
        self.conv2 = nn.Conv3d(width, width, 3, padding=1)
        self.norm2 = nn.GroupNorm(_GROUPS, width)

    def forward(self, x_BCFHW: torch.Tensor) -> torch.Tensor:
        hidden = self.conv2(functional.silu(self.norm1(self.conv1(x_BCFHW))))
        return functional.silu(self.norm2(hidden) + x_BCFHW)


class Blur(nn.Module):
    """Depthwise binomial blur, zero borders, one of every ``step`` rows and columns kept; nothing for a step of one.

    The 5x5 kernel, the outer product of [1,4,6,4,1]/16 with itself, comes with the weights.
    """

    kernel: torch.Tensor

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step
        self.register_buffer("kernel", torch.empty(1, 1, _BLUR, _BLUR))

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        if self.step == 1:
            return x_NCHW
        channels = x_NCHW.shape[1]
        weight = self.kernel.expand(channels, 1, _BLUR, _BLUR)
        return functional.conv2d(x_NCHW, weight, stride=self.step, padding=_BLUR // 2, groups=channels)


class RationalResampler(nn.Module):
    """[N,C,H,W] -> [N,C,ceil(H*n/d),ceil(W*n/d)] for a scale n/d: convolution, pixel shuffle by n, blur by d."""

    def __init__(self, width: int, scale: float) -> None:
        super().__init__()
        self.factor, step = _FRACTIONS[scale]
        self.conv = nn.Conv2d(width, width * self.factor**2, 3, padding=1)
        self.blur_down = Blur(step)

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        return self.blur_down(functional.pixel_shuffle(self.conv(x_NCHW), self.factor))


class LatentUpsampler(nn.Module):
    """Residual blocks before and after a resampling of each frame; takes and gives denormalised latents."""

    def __init__(self, config: UpsamplerConfig) -> None:
        super().__init__()
        self.config = config
        width, blocks = config.mid_channels, config.num_blocks_per_stage
        self.initial_conv = nn.Conv3d(config.in_channels, width, 3, padding=1)
        self.initial_norm = nn.GroupNorm(_GROUPS, width)
        self.res_blocks = nn.ModuleList(ResBlock(width) for _ in range(blocks))
        self.upsampler: nn.Module
        if config.use_rational_resampler:
            self.upsampler = RationalResampler(width, config.rational_spatial_scale)
        else:
            self.upsampler = nn.Sequential(nn.Conv2d(width, 4 * width, 3, padding=1), nn.PixelShuffle(2))
        self.post_upsample_res_blocks = nn.ModuleList(ResBlock(width) for _ in range(blocks))
        self.final_conv = nn.Conv3d(width, config.in_channels, 3, padding=1)

    def forward(self, latents_BCFHW: torch.Tensor) -> torch.Tensor:
        """[B,C,F,H,W] in the dtype of the weights -> the same with H and W scaled."""
        x = functional.silu(self.initial_norm(self.initial_conv(latents_BCFHW)))
        for block in self.res_blocks:
            x = block(x)
        frames_NCHW = x.transpose(1, 2).flatten(0, 1)
        x = self.upsampler(frames_NCHW).unflatten(0, (x.shape[0], -1)).transpose(1, 2)
        for block in self.post_upsample_res_blocks:
            x = block(x)
        return self.final_conv(x)


def load(folder: Path, dtype: torch.dtype, device: torch.device) -> LatentUpsampler:
    """The upsampler of ``folder`` (``config.json`` and safetensors). InputError when it cannot be used."""
    return weights.load(partial(LatentUpsampler, UpsamplerConfig.load(folder)), folder, dtype, device)


def upsample(
    upsampler: LatentUpsampler, vae: VideoVAE, latents_BCFHW: torch.Tensor, numerics: Numerics, probe: Probe
) -> torch.Tensor:
    """Normalised latents [B,C,F,H,W] -> normalised latents of scaled H and W, in the upsampler's dtype.

    They are denormalised in the dtype the numerics say, rounded to that of the upsampler, and normalised again in that.
    InputError when the channels are not those of the upsampler and the VAE.
    """
    shape, channels = tuple(latents_BCFHW.shape), upsampler.config.in_channels
    if vae.config.latent_channels != channels:
        raise bad_field("upsampler", "in_channels", channels, f"the VAE's {vae.config.latent_channels}")
    if len(shape) != 5 or 0 in shape or shape[1] != channels:
        raise bad_field("upsampler", "latents", shape, f"a shape [B, {channels}, F, H, W]")
    dtype = upsampler.final_conv.weight.dtype
    taken_off_in = dtype if numerics.upsample_dtype == "model" else torch.float32
    small = denormalise(vae, latents_BCFHW.to(taken_off_in)).to(dtype)
    probe.tap("upsample/input", small)
    large = upsampler(small)
    probe.tap("upsample/output", large)
    return normalise(vae, large)
