"""Mel spectrogram to waveform by transposed convolutions: HiFi-GAN and, with periodic activations, BigVGAN.

Sources: Kong et al. 2020 (HiFi-GAN), arXiv:2010.05646; Lee et al. 2023 (BigVGAN), arXiv:2206.04658; details
diffusers 0.42, pipelines/ltx2/vocoder.py. Module names are those of the diffusers layout.
Legend: B batch, C audio channels, T mel frames, M mel bins, D width, N samples.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from conformance.errors import bad_field
from engine.models.ltx2.vocoder.activations import Antialiased, Snake
from engine.models.ltx2.vocoder.config import GeneratorConfig


def _activation(config: GeneratorConfig, channels: int, *, beta: bool) -> nn.Module:
    if config.act_fn == "leaky_relu":
        return nn.LeakyReLU(config.leaky_relu_negative_slope)
    return Antialiased(Snake(channels, beta=beta), config.antialias_ratio, config.antialias_kernel_size)


class ResBlock(nn.Module):
    """A chain of x + conv(act(dilated conv(act(x)))), one link a dilation; [B,D,N] -> [B,D,N]."""

    def __init__(self, config: GeneratorConfig, channels: int, kernel: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(
            nn.Conv1d(channels, channels, kernel, dilation=dilation, padding="same") for dilation in dilations
        )
        self.convs2 = nn.ModuleList(nn.Conv1d(channels, channels, kernel, padding="same") for _ in dilations)
        beta = config.act_fn == "snakebeta"
        self.acts1 = nn.ModuleList(_activation(config, channels, beta=beta) for _ in dilations)
        self.acts2 = nn.ModuleList(_activation(config, channels, beta=beta) for _ in dilations)

    def forward(self, x_BDN: torch.Tensor) -> torch.Tensor:
        for act1, conv1, act2, conv2 in zip(self.acts1, self.convs1, self.acts2, self.convs2, strict=True):
            x_BDN = x_BDN + conv2(act2(conv1(act1(x_BDN))))
        return x_BDN


class Generator(nn.Module):
    """[B,C,T,M] -> [B,C,N], N = T times the product of the upsampling factors, in the weights' dtype.

    Every level upsamples and takes the mean of its residual blocks.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        width = config.hidden_channels
        self.conv_in = nn.Conv1d(config.in_channels, width, 7, padding=3)
        self.upsamplers, self.resnets = nn.ModuleList(), nn.ModuleList()
        for kernel, factor in zip(config.upsample_kernel_sizes, config.upsample_factors, strict=True):
            padding = (kernel - factor) // 2
            self.upsamplers.append(nn.ConvTranspose1d(width, width // 2, kernel, stride=factor, padding=padding))
            width //= 2
            self.resnets.extend(
                ResBlock(config, width, size, dilations)
                for size, dilations in zip(config.resnet_kernel_sizes, config.resnet_dilations, strict=True)
            )
        # the last activation has a slope of its own, and a beta in either periodic kind
        self.act_out = nn.LeakyReLU() if config.act_fn == "leaky_relu" else _activation(config, width, beta=True)
        self.conv_out = nn.Conv1d(width, config.out_channels, 7, padding=3, bias=config.final_bias)

    def forward(self, mel_BCTM: torch.Tensor) -> torch.Tensor:
        """mel_BCTM: natural logarithm of the mel spectrogram. InputError when its channels and bins do not fit."""
        config = self.config
        if mel_BCTM.ndim != 4 or mel_BCTM.shape[1] * mel_BCTM.shape[3] != config.in_channels:
            wanted = f"a shape [B, C, frames, bins] with {config.in_channels} bins of all channels"
            raise bad_field("vocoder", "mel", tuple(mel_BCTM.shape), wanted)
        x = self.conv_in(mel_BCTM.transpose(2, 3).flatten(1, 2))
        blocks = len(config.resnet_kernel_sizes)
        for level, upsampler in enumerate(self.upsamplers):
            if config.act_fn == "leaky_relu":
                x = functional.leaky_relu(x, config.leaky_relu_negative_slope)
            x = upsampler(x)
            parallel = self.resnets[level * blocks : (level + 1) * blocks]
            x = torch.stack([block(x) for block in parallel]).mean(dim=0)
        wave = self.conv_out(self.act_out(x))
        if config.final_act_fn == "tanh":
            return torch.tanh(wave)
        return wave.clamp(-1, 1) if config.final_act_fn == "clamp" else wave
