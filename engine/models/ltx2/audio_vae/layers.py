"""Layers of the audio VAE: two-dimensional convolutions over time and mel bins, causal in time.

Parameter names are those of the diffusers layout. Source: diffusers 0.42, autoencoder_kl_ltx2_audio.py.
Legend: B batch, C channels, T mel or latent frames (the causal axis), M mel or latent bins.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

_EPS = 1e-6


def pixel_norm(x_BCTM: torch.Tensor) -> torch.Tensor:
    """x / sqrt(mean(x^2) + 1e-6) over the channels, every operation in x's own dtype; same shape.

    Source: Karras et al. 2018, arXiv:1710.10196, section 4.2.
    """
    return x_BCTM / torch.sqrt(torch.mean(x_BCTM**2, dim=1, keepdim=True) + _EPS)


class CausalConv2d(nn.Module):
    """Convolution that sees no later frame: zeros before the first frame, and on both sides of the bins."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel)
        side = (kernel - 1) // 2
        self.padding = (side, kernel - 1 - side, kernel - 1, 0)  # bins left, right; frames before, after

    def forward(self, x_BCTM: torch.Tensor) -> torch.Tensor:
        return self.conv(functional.pad(x_BCTM, self.padding))


class ResnetBlock(nn.Module):
    """x + two causal convolutions, each after norm and SiLU; x is projected where the width changes."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = CausalConv2d(inputs, outputs, 3)
        self.conv2 = CausalConv2d(outputs, outputs, 3)
        self.nin_shortcut = CausalConv2d(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x_BCTM: torch.Tensor) -> torch.Tensor:
        h = self.conv1(functional.silu(pixel_norm(x_BCTM)))
        h = self.conv2(functional.silu(pixel_norm(h)))
        return (x_BCTM if self.nin_shortcut is None else self.nin_shortcut(x_BCTM)) + h


class Downsample(nn.Module):
    """Halves frames (rounded up) and bins by a strided convolution, causal in time."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x_BCTM: torch.Tensor) -> torch.Tensor:
        return self.conv(functional.pad(x_BCTM, (0, 1, 2, 0)))


class Upsample(nn.Module):
    """Doubles frames and bins, convolves, and drops the first frame: T frames become 2T - 1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = CausalConv2d(channels, channels, 3)

    def forward(self, x_BCTM: torch.Tensor) -> torch.Tensor:
        doubled = functional.interpolate(x_BCTM, scale_factor=2.0, mode="nearest")
        return self.conv(doubled)[:, :, 1:]
