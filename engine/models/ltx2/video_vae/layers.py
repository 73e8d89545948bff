"""Building blocks of the video VAE: convolution over space and time, pixel norm, residual block, pixel rearrangement.

Parameter names are those of the diffusers layout. Legend: B batch, C channels, F frames, H rows, W columns.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from engine.models.ltx2.video_vae.config import Padding

_EPS = 1e-8


def pixel_norm(x_BCFHW: torch.Tensor) -> torch.Tensor:
    """x / sqrt(mean over C of x^2 + 1e-8), every step rounded to x's dtype (Karras et al. 2018, arXiv:1710.10196)."""
    return x_BCFHW / torch.sqrt(torch.mean(x_BCFHW**2, dim=1, keepdim=True) + _EPS)


def space_to_depth(x_BCFHW: torch.Tensor, step: tuple[int, int, int]) -> torch.Tensor:
    """Blocks of ``step`` = (t, p, q) frames, rows and columns become channels: [B, C*t*p*q, F/t, H/p, W/q]."""
    (b, c, f, h, w), (t, p, q) = x_BCFHW.shape, step
    blocks = x_BCFHW.reshape(b, c, f // t, t, h // p, p, w // q, q)
    return blocks.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(b, -1, f // t, h // p, w // q)


def depth_to_space(x_BCFHW: torch.Tensor, step: tuple[int, int, int]) -> torch.Tensor:
    """Inverse of :func:`space_to_depth`: [B, C*t*p*q, F, H, W] -> [B, C, F*t, H*p, W*q]."""
    (b, _, f, h, w), (t, p, q) = x_BCFHW.shape, step
    blocks = x_BCFHW.reshape(b, -1, t, p, q, f, h, w)
    return blocks.permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(b, -1, f * t, h * p, w * q)


def patchify(x_BCFHW: torch.Tensor, size: int) -> torch.Tensor:
    """Square patches of pixels become channels, columns slower than rows: [B, C*size^2, F, H/size, W/size]."""
    b, c, f, h, w = x_BCFHW.shape
    patches = x_BCFHW.reshape(b, c, f, h // size, size, w // size, size)
    return patches.permute(0, 1, 6, 4, 2, 3, 5).reshape(b, -1, f, h // size, w // size)


def unpatchify(x_BCFHW: torch.Tensor, size: int) -> torch.Tensor:
    """Inverse of :func:`patchify`: [B, C*size^2, F, H, W] -> [B, C, F, H*size, W*size]."""
    b, _, f, h, w = x_BCFHW.shape
    patches = x_BCFHW.reshape(b, -1, size, size, f, h, w)
    return patches.permute(0, 1, 4, 5, 3, 6, 2).reshape(b, -1, f, h * size, w * size)


class Conv(nn.Module):
    """3x3x3 convolution that keeps F, H and W. Borders in time repeat the outer frames; see ``causal``.

    causal: two copies of the first frame come before the clip, so that no frame sees a later one; otherwise one
    copy of the first before it and one of the last after it. padding: ``zeros`` or ``reflect``, of rows and columns.
    """

    def __init__(self, width: int, out: int, *, causal: bool, padding: Padding) -> None:
        super().__init__()
        self.causal = causal
        self.conv = nn.Conv3d(width, out, 3, padding=(0, 1, 1), padding_mode=padding)

    def forward(self, x_BCFHW: torch.Tensor) -> torch.Tensor:
        first, last = x_BCFHW[:, :, :1], x_BCFHW[:, :, -1:]
        frames = (first, first, x_BCFHW) if self.causal else (first, x_BCFHW, last)
        return self.conv(torch.cat(frames, dim=2))


class ResBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))), all of one width."""

    def __init__(self, width: int, *, causal: bool, padding: Padding) -> None:
        super().__init__()
        self.conv1 = Conv(width, width, causal=causal, padding=padding)
        self.conv2 = Conv(width, width, causal=causal, padding=padding)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.conv1(functional.silu(pixel_norm(x)))
        return self.conv2(functional.silu(pixel_norm(hidden))) + x


class MidBlock(nn.Module):
    """Residual blocks at the coarsest resolution."""

    def __init__(self, width: int, layers: int, *, causal: bool, padding: Padding) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResBlock(width, causal=causal, padding=padding) for _ in range(layers))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.resnets:
            x = block(x)
        return x
