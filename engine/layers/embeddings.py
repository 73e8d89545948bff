"""Timestep and caption embeddings. Legend: N timesteps, W embedding width, k modulation rows."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

SINUSOID_WIDTH = 256


def sinusoid(t_N: torch.Tensor) -> torch.Tensor:
    """[cos(t*w), sin(t*w)] with w_i = 10000^(-i/128): [N] -> [N,256], float32.

    Source: Vaswani et al. 2017, arXiv:1706.03762, cosines first. Timesteps reach 1000, where bf16 has steps of
    4: they must arrive in float32.
    """
    half = SINUSOID_WIDTH // 2
    exponents = -math.log(10000) * torch.arange(half, dtype=torch.float32, device=t_N.device) / half
    angles = t_N.float()[:, None] * torch.exp(exponents)
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


class TimestepMLP(nn.Module):
    """linear_2(silu(linear_1(x))): [N,256] -> [N,W]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(SINUSOID_WIDTH, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear_2(functional.silu(self.linear_1(x)))


class AdaLNHead(nn.Module):
    """Timesteps to k rows of modulation (adaLN-single of PixArt-alpha, arXiv:2310.00426)."""

    def __init__(self, width: int, rows: int) -> None:
        super().__init__()
        self.emb = nn.ModuleDict({"timestep_embedder": TimestepMLP(width)})
        self.linear = nn.Linear(width, rows * width)

    def forward(self, t: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """Timesteps [B] or [B,T] float32 -> modulation [B,T|1,k*W] and embedding [B,T|1,W], both ``dtype``."""
        embedded = self.emb["timestep_embedder"](sinusoid(t.flatten()).to(dtype))
        modulation = self.linear(functional.silu(embedded))
        batch = t.shape[0]
        return modulation.unflatten(0, (batch, -1)), embedded.unflatten(0, (batch, -1))


def modulation(table_kW: torch.Tensor, ada_BTM: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """A block's own table plus the shared head output [B,T,k*W]: k tensors [B,T,W]."""
    rows, width = table_kW.shape
    return (table_kW + ada_BTM.unflatten(-1, (rows, width))).unbind(2)


class CaptionProjection(nn.Module):
    """linear_2(gelu_tanh(linear_1(x))): text features to the stream's width (LTX-2.0)."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(features, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear_2(functional.gelu(self.linear_1(x), approximate="tanh"))
