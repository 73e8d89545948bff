"""Filters of whole rate ratios, one filter for all channels. Source: diffusers 0.42, pipelines/ltx2/vocoder.py.

Legend: B batch, C channels, N samples, R rate ratio, K taps.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

# of the Hann filter: zero crossings a side, pass band as a part of the lower rate's, lower-rate samples a side
_ZEROS, _ROLLOFF = 6, 0.99
_WIDTH = math.ceil(_ZEROS / _ROLLOFF)


def raised(x_BCN: torch.Tensor, taps_11K: torch.Tensor, ratio: int, *, pad: int, crop: tuple[int, int]) -> torch.Tensor:
    """Zero stuffing and filtering -> [B,C,R*N]; ``pad`` samples are repeated at both ends, ``crop`` taken off after."""
    channels = x_BCN.shape[1]
    padded = functional.pad(x_BCN, (pad, pad), mode="replicate")
    taps = taps_11K.expand(channels, -1, -1)
    full = ratio * functional.conv_transpose1d(padded, taps, stride=ratio, groups=channels)
    return full[..., crop[0] : -crop[1]]


class Upsample1d(nn.Module):
    """Raises the rate; the taps are the checkpoint's (a Kaiser-windowed sinc)."""

    filter: torch.Tensor

    def __init__(self, ratio: int, kernel: int) -> None:
        super().__init__()
        self.register_buffer("filter", torch.empty(1, 1, kernel))
        self.ratio, self.pad, spare = ratio, kernel // ratio - 1, kernel - ratio
        self.crop = (self.pad * ratio + spare // 2, self.pad * ratio + (spare + 1) // 2)

    def forward(self, x_BCN: torch.Tensor) -> torch.Tensor:
        return raised(x_BCN, self.filter, self.ratio, pad=self.pad, crop=self.crop)


class Downsample1d(nn.Module):
    """Lowers the rate; the taps are the checkpoint's (a Kaiser-windowed sinc)."""

    filter: torch.Tensor

    def __init__(self, ratio: int, kernel: int) -> None:
        super().__init__()
        self.register_buffer("filter", torch.empty(1, 1, kernel))
        self.ratio, self.padding = ratio, (kernel // 2 + kernel % 2 - 1, kernel // 2)

    def forward(self, x_BCN: torch.Tensor) -> torch.Tensor:
        channels = x_BCN.shape[1]
        padded = functional.pad(x_BCN, self.padding, mode="replicate")
        return functional.conv1d(padded, self.filter.expand(channels, -1, -1), stride=self.ratio, groups=channels)


def hann_taps(ratio: int, dtype: torch.dtype) -> torch.Tensor:
    """Hann-windowed sinc that raises the rate by ``ratio``: [1,1,14*R+1] on the CPU.

    Every operation is in ``dtype``. The taps are in no checkpoint, and diffusers makes them under the weights'
    dtype: in bf16 they are off by up to 1.3 % of the largest.
    """
    time = (torch.arange(2 * _WIDTH * ratio + 1, dtype=dtype) / ratio - _WIDTH) * _ROLLOFF
    window = torch.cos(time.clamp(-_ZEROS, _ZEROS) * math.pi / _ZEROS / 2) ** 2
    return (torch.sinc(time) * window * _ROLLOFF / ratio).view(1, 1, -1)


def hann_raised(x_BCN: torch.Tensor, ratio: int, taps_dtype: torch.dtype) -> torch.Tensor:
    """[B,C,N] -> [B,C,R*N] through :func:`hann_taps` of ``taps_dtype``, rounded to x's."""
    taps = hann_taps(ratio, taps_dtype).to(x_BCN)
    return raised(x_BCN, taps, ratio, pad=_WIDTH, crop=(2 * _WIDTH * ratio, (2 * _WIDTH - 1) * ratio + 1))
