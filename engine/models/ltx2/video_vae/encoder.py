"""Encoder of the video VAE. Legend: B batch, C channels, F frames, H rows, W columns."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from engine.models.ltx2.video_vae.config import STRIDES, Padding, VideoVAEConfig
from engine.models.ltx2.video_vae.layers import Conv, MidBlock, ResBlock, patchify, pixel_norm, space_to_depth


class Downsample(nn.Module):
    """Space to depth of a convolution, plus the input rearranged the same way and averaged to the same width.

    A step of two frames repeats the first frame, so that it is alone in the first pair.
    """

    def __init__(self, width: int, out: int, step: tuple[int, int, int], *, causal: bool, padding: Padding) -> None:
        super().__init__()
        self.step, self.out = step, out
        self.conv = Conv(width, out // math.prod(step), causal=causal, padding=padding)

    def forward(self, x_BCFHW: torch.Tensor) -> torch.Tensor:
        x = torch.cat([x_BCFHW[:, :, : self.step[0] - 1], x_BCFHW], dim=2)
        skip = space_to_depth(x, self.step).unflatten(1, (self.out, -1)).mean(dim=2)
        return space_to_depth(self.conv(x), self.step) + skip


class DownBlock(nn.Module):
    """Residual blocks of one width, then one downsampling."""

    def __init__(
        self, width: int, out: int, layers: int, step: tuple[int, int, int], *, causal: bool, padding: Padding
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResBlock(width, causal=causal, padding=padding) for _ in range(layers))
        self.downsamplers = nn.ModuleList([Downsample(width, out, step, causal=causal, padding=padding)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.resnets:
            x = block(x)
        return self.downsamplers[0](x)


class Encoder(nn.Module):
    """Pixels to latents. One more channel comes out than latents have: the log variance, which inference drops."""

    def __init__(self, config: VideoVAEConfig) -> None:
        super().__init__()
        self.patch_size, self.latents = config.patch_size, config.latent_channels
        causal, padding = config.encoder_causal, config.encoder_spatial_padding_mode
        width = config.latent_channels
        self.conv_in = Conv(config.in_channels * config.patch_size**2, width, causal=causal, padding=padding)
        self.down_blocks = nn.ModuleList()
        *layers, middle = config.layers_per_block
        for out, depth, kind in zip(config.block_out_channels, layers, config.downsample_type, strict=True):
            self.down_blocks.append(DownBlock(width, out, depth, STRIDES[kind], causal=causal, padding=padding))
            width = out
        self.mid_block = MidBlock(width, middle, causal=causal, padding=padding)
        self.conv_out = Conv(width, config.latent_channels + 1, causal=causal, padding=padding)

    def forward(self, pixels_BCFHW: torch.Tensor) -> torch.Tensor:
        """[B,3,F,H,W] in [-1,1] -> means of the latents [B,C,1+(F-1)/t,H/s,W/s] with t, s the compression ratios."""
        x = self.conv_in(patchify(pixels_BCFHW, self.patch_size))
        for block in self.down_blocks:
            x = block(x)
        x = self.mid_block(x)
        return self.conv_out(functional.silu(pixel_norm(x)))[:, : self.latents]
