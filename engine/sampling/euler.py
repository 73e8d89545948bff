"""Flow matching with an Euler step (Lipman et al. 2022, arXiv:2210.02747): x_t = (1-t)*x0 + t*noise, v = dx/dt.

``sigma`` is a float32 scalar tensor on the state's device. CUDA divides by a Python number through its reciprocal,
which rounds twice. Arithmetic is float32; results are rounded to ``dtype``.
"""

from __future__ import annotations

from typing import Literal

import torch

Divisor = Literal["tensor", "number"]


def to_x0(x: torch.Tensor, velocity: torch.Tensor, sigma: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """x - v*sigma."""
    return (x.float() - velocity.float() * sigma).to(dtype)


def to_velocity(
    x: torch.Tensor, x0: torch.Tensor, sigma: torch.Tensor, dtype: torch.dtype, *, divisor: Divisor = "tensor"
) -> torch.Tensor:
    """(x - x0) / sigma, as ``Numerics.velocity_divisor`` says."""
    return ((x.float() - x0.float()) / (sigma if divisor == "tensor" else sigma.item())).to(dtype)


def step(
    x: torch.Tensor, velocity: torch.Tensor, sigma: torch.Tensor, next_sigma: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    """x + (next_sigma - sigma)*v."""
    return (x.float() + (next_sigma - sigma) * velocity.float()).to(dtype)
