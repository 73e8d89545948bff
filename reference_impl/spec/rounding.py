"""Rounding as a function of real numbers: to nearest, ties to even, one step from float64 to the wanted format.

One operation (+ - * / sqrt) on numbers of a format, done in float64 and rounded by ``round_to``, is that operation
correctly rounded: 53 bits are more than twice 24 plus 2 (Figueroa 1995, "When is double rounding innocuous?").
torch computes one operation on bfloat16 in float32 and rounds again, which is innocuous for the same reason.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

Round = Callable[[torch.Tensor], torch.Tensor]

# significant bits, exponent of the smallest normal number, largest finite number
_FORMATS = {
    torch.bfloat16: (8, -126, (2.0 - 2.0**-7) * 2.0**127),
    torch.float32: (24, -126, (2.0 - 2.0**-23) * 2.0**127),
}


def exact(x: torch.Tensor | float) -> torch.Tensor:
    """The same numbers as float64."""
    return x.double() if isinstance(x, torch.Tensor) else torch.tensor(x, dtype=torch.float64)


def round_to(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """float64 in and out: the nearest numbers of ``dtype`` (bfloat16, float32; float64 is the identity).

    Subnormals, signed zeros, infinities and NaN as IEEE 754 has them.
    """
    if dtype == torch.float64:
        return x
    bits, lowest, largest = _FORMATS[dtype]
    exponent = torch.frexp(x).exponent.clamp(min=lowest + 1)
    quantum = torch.ldexp(torch.ones_like(x), exponent - bits)
    rounded = torch.round(x / quantum) * quantum
    rounded = torch.where(rounded.abs() > largest, torch.copysign(torch.full_like(x, torch.inf), x), rounded)
    return torch.where(torch.isfinite(x), rounded, x)


def f32(x: torch.Tensor) -> torch.Tensor:
    """Rounded to float32."""
    return round_to(x, torch.float32)


def rounder(dtype: torch.dtype) -> Round:
    """``round_to`` for one format."""
    return lambda x: round_to(x, dtype)


def ulps(ours: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """|ours - expected| in units in the last place of ``expected`` in ``dtype``, float64."""
    bits, lowest, _ = _FORMATS[dtype]
    exponent = torch.frexp(exact(expected)).exponent.clamp(min=lowest + 1)
    return (exact(ours) - exact(expected)).abs() / torch.ldexp(torch.ones_like(exact(expected)), exponent - bits)
