"""Periodic activations, run at a higher rate so that the overtones they add do not alias.

Legend: B batch, C channels, N samples.
"""

from __future__ import annotations

import torch
from torch import nn

from engine.models.ltx2.vocoder.resample import Downsample1d, Upsample1d

_EPS = 1e-9


class Snake(nn.Module):
    """x + sin(alpha x)^2 / (beta + 1e-9), every operation in x's dtype; alpha and beta are stored as logarithms.

    Without ``beta`` alpha takes its place. Sources: Ziyin et al. 2020, arXiv:2006.08195; the filters, and beta,
    Lee et al. 2023 (BigVGAN), arXiv:2206.04658.
    """

    def __init__(self, channels: int, *, beta: bool) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.empty(channels))
        self.beta = nn.Parameter(torch.empty(channels)) if beta else None

    def forward(self, x_BCN: torch.Tensor) -> torch.Tensor:
        alpha = torch.exp(self.alpha.view(1, -1, 1))
        beta = alpha if self.beta is None else torch.exp(self.beta.view(1, -1, 1))
        return x_BCN + (1.0 / (beta + _EPS)) * torch.sin(x_BCN * alpha).pow(2)


class Antialiased(nn.Module):
    """An activation between filters that raise and lower the rate by ``ratio``; [B,C,N] -> [B,C,N]."""

    def __init__(self, act: nn.Module, ratio: int, kernel: int) -> None:
        super().__init__()
        self.upsample = Upsample1d(ratio, kernel)
        self.act = act
        self.downsample = Downsample1d(ratio, kernel)

    def forward(self, x_BCN: torch.Tensor) -> torch.Tensor:
        return self.downsample(self.act(self.upsample(x_BCN)))
