"""Decoder of the video VAE. Legend: B batch, C channels, F frames, H rows, W columns."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from engine.models.ltx2.video_vae.config import STRIDES, Padding, VideoVAEConfig
from engine.models.ltx2.video_vae.layers import Conv, MidBlock, ResBlock, depth_to_space, pixel_norm, unpatchify


class Upsample(nn.Module):
    """Depth to space of a convolution, without the first of the frames that a step of two frames makes.

    width becomes width / factor. residual: adds the input, rearranged the same way and its channels repeated.
    """

    def __init__(
        self, width: int, step: tuple[int, int, int], *, factor: int, residual: bool, causal: bool, padding: Padding
    ) -> None:
        super().__init__()
        self.step, self.residual, self.repeats = step, residual, math.prod(step) // factor
        self.conv = Conv(width, width * self.repeats, causal=causal, padding=padding)

    def forward(self, x_BCFHW: torch.Tensor) -> torch.Tensor:
        dropped = self.step[0] - 1
        out = depth_to_space(self.conv(x_BCFHW), self.step)[:, :, dropped:]
        if not self.residual:
            return out
        skip = depth_to_space(x_BCFHW, self.step).repeat(1, self.repeats, 1, 1, 1)
        return out + skip[:, :, dropped:]


class UpBlock(nn.Module):
    """One upsampling, then residual blocks of one width."""

    def __init__(self, upsample: Upsample, out: int, layers: int, *, causal: bool, padding: Padding) -> None:
        super().__init__()
        self.upsamplers = nn.ModuleList([upsample])
        self.resnets = nn.ModuleList(ResBlock(out, causal=causal, padding=padding) for _ in range(layers))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.upsamplers[0](x)
        for block in self.resnets:
            x = block(x)
        return x


class Decoder(nn.Module):
    """Latents to pixels. The configuration lists its blocks backwards, ``upsample_type`` excepted."""

    def __init__(self, config: VideoVAEConfig) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        causal, padding = config.decoder_causal, config.decoder_spatial_padding_mode
        width = config.decoder_block_out_channels[-1]
        middle, *layers = config.decoder_layers_per_block[::-1]
        self.conv_in = Conv(config.latent_channels, width, causal=causal, padding=padding)
        self.mid_block = MidBlock(width, middle, causal=causal, padding=padding)
        self.up_blocks = nn.ModuleList()
        for depth, kind, factor, residual in zip(
            layers, config.upsample_type, config.upsample_factor[::-1], config.upsample_residual[::-1], strict=True
        ):
            step = STRIDES[kind]
            up = Upsample(width, step, factor=factor, residual=residual, causal=causal, padding=padding)
            width //= factor
            self.up_blocks.append(UpBlock(up, width, depth, causal=causal, padding=padding))
        self.conv_out = Conv(width, config.out_channels * config.patch_size**2, causal=causal, padding=padding)

    def forward(self, latents_BCFHW: torch.Tensor) -> torch.Tensor:
        """[B,C,F,H,W], denormalised -> pixels [B,3,1+(F-1)*t,H*s,W*s] around [-1,1], t and s the compression ratios."""
        x = self.mid_block(self.conv_in(latents_BCFHW))
        for block in self.up_blocks:
            x = block(x)
        x = self.conv_out(functional.silu(pixel_norm(x)))
        return unpatchify(x, self.patch_size)
