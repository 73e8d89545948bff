"""Normalisation without weights. Both compute in float32 and round once; they differ in who fuses the steps."""

from __future__ import annotations

import torch
from torch.nn import functional


def rms_norm(x: torch.Tensor, eps: float) -> torch.Tensor:
    """x / sqrt(mean(x^2) + eps) over the last axis, as separate float32 operations and one rounding.

    Source: Zhang and Sennrich 2019, arXiv:1910.07467. Any shape and floating dtype; same out.
    """
    inverse = torch.rsqrt(x.float().square().mean(-1, keepdim=True) + eps)
    return (x * inverse).to(x.dtype)


def fused_rms_norm(x: torch.Tensor, eps: float) -> torch.Tensor:
    """The same function through torch's operator, which is one kernel (another summation order) on CUDA."""
    return functional.rms_norm(x, x.shape[-1:], eps=eps)


def layer_norm(x: torch.Tensor, eps: float) -> torch.Tensor:
    """(x - mean) / sqrt(var + eps) over the last axis (Ba et al. 2016, arXiv:1607.06450); same shape and dtype."""
    return functional.layer_norm(x, x.shape[-1:], eps=eps)
