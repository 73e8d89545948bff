"""Feed-forward layers with the tanh form of GELU (Hendrycks and Gimpel 2016, arXiv:1606.08415)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class GeluProjection(nn.Module):
    """gelu_tanh(proj(x)): [..., dim] -> [..., hidden]."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Linear(dim, hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.gelu(self.proj(x), approximate="tanh")


class FeedForward(nn.Module):
    """dim -> 4*dim -> dim. ``net`` keeps the positions of the diffusers layout: projection 0, output 2."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.net = nn.Sequential(GeluProjection(dim, 4 * dim), nn.Identity(), nn.Linear(4 * dim, dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)
