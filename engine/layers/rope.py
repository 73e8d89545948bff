"""Rotary position embedding of the LTX-2 family, split layout (Su et al. 2021, arXiv:2104.09864).

Every head has its own frequencies: one grid over the whole inner width, cut into heads.
Legend: B batch, X position axes, T tokens, H heads, K frequencies per axis, d head dim, R = d/2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from engine import picks
from engine.numerics import Numerics
from kernels import split_rotary_eager
from kernels.routing import choose_rotary, interpreting


@dataclass(frozen=True)
class Rotary:
    """cos and sin [B,H,T,R] float32 and the rounding order in which they are applied."""

    cos_BHTR: torch.Tensor
    sin_BHTR: torch.Tensor
    rounding: str

    def apply(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """Rotate [B,T,H*d] per head, (first half, second half) being the plane. Returns [B,T,H,d], x's dtype."""
        operands = (x_BTD, self.cos_BHTR, self.sin_BHTR, self.rounding)
        pick = choose_rotary(*operands, enabled=picks.kernels_enabled(), interpreted=interpreting())
        picks.record("rotary", str(pick))
        if pick.name == "triton":
            from kernels.split_rotary import rotate as fused  # imports Triton

            return fused(*operands)
        return split_rotary_eager.rotate(*operands)


def midpoints(bounds_BXT2: torch.Tensor) -> torch.Tensor:
    """Middle of each token's [start, end) per axis: [B,X,T,2] -> [B,X,T]."""
    start, end = bounds_BXT2.unbind(-1)
    return (start + end) / 2.0


def frequency_grid(count: int, theta: float, numerics: Numerics, device: torch.device) -> torch.Tensor:
    """theta^(k/(count-1)) * pi/2 for k < count, float32, made on ``device`` in ``numerics.rope_grid_dtype``."""
    dtype = torch.float64 if numerics.rope_grid_dtype == "float64" else torch.float32
    exponents = torch.linspace(0.0, 1.0, count, dtype=dtype, device=device)
    return (torch.pow(theta, exponents) * math.pi / 2.0).float()


def rotary(fractions_BXT: torch.Tensor, *, dim: int, heads: int, theta: float, numerics: Numerics) -> Rotary:
    """Tables for an inner width ``dim`` from positions as fractions of their maxima, float32.

    The angle is (2*fraction - 1) * frequency. Frequencies are the slow index and axes the fast one; widths that
    do not divide are filled up in front with the identity rotation.
    """
    axes = fractions_BXT.shape[1]
    grid_K = frequency_grid(dim // (2 * axes), theta, numerics, fractions_BXT.device)
    angles_BTXK = (fractions_BXT.transpose(1, 2).unsqueeze(-1) * 2 - 1) * grid_K
    angles_BTF = angles_BTXK.transpose(2, 3).flatten(2)
    pad = (dim // 2 - angles_BTF.shape[-1], 0)
    cos = torch.nn.functional.pad(angles_BTF.cos(), pad, value=1.0)
    sin = torch.nn.functional.pad(angles_BTF.sin(), pad, value=0.0)
    shape = (heads, dim // 2 // heads)
    return Rotary(
        cos.unflatten(2, shape).transpose(1, 2), sin.unflatten(2, shape).transpose(1, 2), numerics.rope_rounding
    )


def sequence_rotary(
    length: int, max_length: int, *, dim: int, heads: int, theta: float, numerics: Numerics, device: torch.device
) -> Rotary:
    """Tables for token indices 0..length-1 (no midpoints) as fractions of ``max_length``; batch 1 broadcasts."""
    fractions = torch.arange(length, dtype=torch.float32, device=device) / max_length
    return rotary(fractions[None, None], dim=dim, heads=heads, theta=theta, numerics=numerics)
