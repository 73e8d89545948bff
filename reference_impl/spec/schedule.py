"""Noise levels: falling from 1, shifted for the number of tokens, stretched to 0.1 (arXiv:2403.03206, 5.3.2).

Legend: N steps.
"""

from __future__ import annotations

import math

import torch

from reference_impl.spec.rounding import exact, f32


def shift_exponent(tokens: int) -> float:
    """The line through (1024, 0.95) and (4096, 2.05)."""
    slope = (2.05 - 0.95) / (4096 - 1024)
    return tokens * slope + (0.95 - slope * 1024)


def grid(steps: int, dtype: torch.dtype) -> torch.Tensor:
    """N levels before the shift. float64: 1 - i*(1 - 1/N)/(N - 1), rounded to float32; float32: of N+1 from 1 to 0."""
    if dtype == torch.float64:
        step = (1.0 / steps - 1.0) / (steps - 1)
        values = [1.0 + i * step for i in range(steps - 1)] + [1.0 / steps]
        return f32(torch.tensor(values, dtype=torch.float64))
    step32 = f32(exact(-1.0) / steps)
    nearer_start = [f32(1.0 + step32 * i) for i in range((steps + 1) // 2)]
    nearer_end = [f32(-step32 * (steps - i)) for i in range((steps + 1) // 2, steps)]
    return torch.stack(nearer_start + nearer_end)


def levels(steps: int, tokens: int, grid_dtype: torch.dtype, *, reciprocal: bool) -> torch.Tensor:
    """N+1 levels in float32, every operation rounded: p/(p + 1/s - 1), then 1 - (1-s)/((1-last)/0.9), then 0."""
    s = grid(steps, grid_dtype)
    power = f32(exact(math.exp(shift_exponent(tokens))))
    denominator = f32(power + f32(f32(1.0 / s) - 1.0))
    shifted = f32(power * f32(1.0 / denominator)) if reciprocal else f32(power / denominator)
    rest = f32(1.0 - shifted)
    scale = f32(rest[-1] / f32(exact(1.0 - 0.1)))
    return torch.cat((f32(1.0 - f32(rest / scale)), torch.zeros(1, dtype=torch.float64)))
