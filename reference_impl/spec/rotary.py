"""Rotary embedding, split layout (Su et al. 2021, arXiv:2104.09864).

Legend: B batch, X position axes, T tokens, H heads, K frequencies, d head dim, R = d/2.
"""

from __future__ import annotations

import math

import torch

from reference_impl.spec.rounding import exact, f32, round_to


def frequency_grid(count: int, theta: float) -> torch.Tensor:
    """theta^(k/(count-1)) * pi/2 in float64, rounded to float32."""
    values = [theta ** (k / (count - 1)) * math.pi / 2.0 for k in range(count)]
    return f32(torch.tensor(values, dtype=torch.float64))


def frequency_grid_fp32(count: int, theta: float) -> torch.Tensor:
    """The same, every operation rounded to float32; the exponents are k/(count-1) from the nearer end."""
    step = f32(exact(1.0) / (count - 1))
    values = []
    for k in range(count):
        exponent = f32(step * k) if k < count // 2 else f32(1.0 - step * (count - 1 - k))
        values.append(f32(f32(f32(exact(theta) ** exponent) * f32(exact(math.pi))) / 2.0))
    return torch.stack(values)


def angles(fractions_BXT: torch.Tensor, grid_K: torch.Tensor) -> torch.Tensor:
    """(2*fraction - 1) * frequency in float32: [B,T,K*X], index k*X + axis."""
    batch, axes, tokens = fractions_BXT.shape
    out = torch.empty(batch, tokens, len(grid_K) * axes, dtype=torch.float64)
    for axis in range(axes):
        centred = f32(f32(exact(fractions_BXT[:, axis]) * 2.0) - 1.0)
        for k in range(len(grid_K)):
            out[:, :, k * axes + axis] = f32(centred * exact(grid_K[k]))
    return out


def tables(angles_BTF: torch.Tensor, dim: int, heads: int) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin [B,H,T,R] of an inner width: identity rotations in front where F < dim/2; not rounded."""
    batch, tokens, found = angles_BTF.shape
    spare, half = dim // 2 - found, dim // 2 // heads
    cos, sin = torch.ones(batch, heads, tokens, half).double(), torch.zeros(batch, heads, tokens, half).double()
    for index in range(spare, dim // 2):
        head, lane = divmod(index, half)
        cos[:, head, :, lane] = torch.cos(angles_BTF[:, :, index - spare])
        sin[:, head, :, lane] = torch.sin(angles_BTF[:, :, index - spare])
    return cos, sin


def rotate(
    x_BTD: torch.Tensor,
    cos_BHTR: torch.Tensor,
    sin_BHTR: torch.Tensor,
    rounding: str,
    dtype: torch.dtype,
    *,
    fused: bool = True,
) -> torch.Tensor:
    """Head h of token t, halves a and b: (a*cos - b*sin, b*cos + a*sin) -> [B,T,H,d].

    ``fp32-once``: float32 throughout, the result rounded to ``dtype``. ``product-rounded``: cos, sin and the cosine
    product rounded to ``dtype``, the sine product added in float32. fused: the sine product enters the sum unrounded,
    as one instruction of most processors does it; products of bfloat16 numbers are exact in float32 either way.
    """
    heads, half = cos_BHTR.shape[1], cos_BHTR.shape[3]
    cos, sin = exact(cos_BHTR), exact(sin_BHTR)
    stage = torch.float32
    if rounding == "product-rounded":
        cos, sin, stage = round_to(cos, dtype), round_to(sin, dtype), dtype
    batch, tokens, _ = x_BTD.shape
    out = torch.empty(batch, tokens, heads, 2 * half, dtype=torch.float64)
    for head in range(heads):
        start = head * 2 * half
        a = exact(x_BTD[:, :, start : start + half])
        b = exact(x_BTD[:, :, start + half : start + 2 * half])
        c, s = cos[:, head], sin[:, head]
        first, second = -s * b, s * a
        if not fused:
            first, second = f32(first), f32(second)
        out[:, :, head, :half] = round_to(f32(round_to(a * c, stage) + first), dtype)
        out[:, :, head, half:] = round_to(f32(round_to(b * c, stage) + second), dtype)
    return out
