"""Encoder and decoder of the audio VAE: log-mel spectrograms to latents and back.

Module names are those of the diffusers layout. Source: diffusers 0.42, autoencoder_kl_ltx2_audio.py.
Legend: B batch, C audio channels, Z latent channels, T mel frames, M mel bins, L latent frames, W latent bins.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from engine.models.ltx2.audio_vae.config import AudioVAEConfig
from engine.models.ltx2.audio_vae.layers import CausalConv2d, Downsample, ResnetBlock, Upsample, pixel_norm


class Middle(nn.Module):
    """Two blocks at the coarsest level."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.block_1 = ResnetBlock(width, width)
        self.block_2 = ResnetBlock(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block_2(self.block_1(x))


class Level(nn.Module):
    """Blocks at one resolution, then the way to the next one, where there is one."""

    def __init__(
        self,
        inputs: int,
        width: int,
        blocks: int,
        *,
        downsample: Downsample | None = None,
        upsample: Upsample | None = None,
    ) -> None:
        super().__init__()
        self.block = nn.ModuleList(ResnetBlock(width if index else inputs, width) for index in range(blocks))
        self.downsample, self.upsample = downsample, upsample

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.block:
            x = block(x)
        if self.downsample is not None:
            x = self.downsample(x)
        if self.upsample is not None:
            x = self.upsample(x)
        return x


class Encoder(nn.Module):
    """[B,C,T,M] -> means, then logarithms of variances [B,2Z,L,W], with L = T / 4 rounded up."""

    def __init__(self, config: AudioVAEConfig) -> None:
        super().__init__()
        widths = [config.base_channels * factor for factor in config.ch_mult]
        self.conv_in = CausalConv2d(config.in_channels, config.base_channels, 3)
        inputs = (config.base_channels, *widths)
        last = len(widths) - 1
        self.down = nn.ModuleList(
            Level(
                inputs[index],
                width,
                config.num_res_blocks,
                downsample=Downsample(width) if index < last else None,
            )
            for index, width in enumerate(widths)
        )
        self.mid = Middle(widths[-1])
        self.conv_out = CausalConv2d(widths[-1], 2 * config.latent_channels, 3)

    def forward(self, mel_BCTM: torch.Tensor) -> torch.Tensor:
        x = self.conv_in(mel_BCTM)
        for level in self.down:
            x = level(x)
        return self.conv_out(functional.silu(pixel_norm(self.mid(x))))


class Decoder(nn.Module):
    """[B,Z,L,W] -> [B,C,4L-3,M], as each doubling drops a frame. ``up`` counts from the finest level."""

    def __init__(self, config: AudioVAEConfig) -> None:
        super().__init__()
        widths = [config.base_channels * factor for factor in config.ch_mult]
        self.conv_in = CausalConv2d(config.latent_channels, widths[-1], 3)
        self.mid = Middle(widths[-1])
        inputs = (*widths[1:], widths[-1])
        self.up = nn.ModuleList(
            Level(
                inputs[index],
                width,
                config.num_res_blocks + 1,
                upsample=Upsample(width) if index else None,
            )
            for index, width in enumerate(widths)
        )
        self.conv_out = CausalConv2d(widths[0], config.output_channels, 3)

    def forward(self, latents_BZLW: torch.Tensor) -> torch.Tensor:
        x = self.mid(self.conv_in(latents_BZLW))
        for level in reversed(self.up):
            x = level(x)
        return self.conv_out(functional.silu(pixel_norm(x)))
