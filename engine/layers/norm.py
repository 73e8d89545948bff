"""Normalisation in float32. Without a weight it rounds once; functions differ in who fuses the steps."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from engine.numerics import Numerics


def rms_norm(x: torch.Tensor, eps: float) -> torch.Tensor:
    """x / sqrt(mean(x^2) + eps) over the last axis, as separate float32 operations and one rounding.

    Source: Zhang and Sennrich 2019, arXiv:1910.07467. Any shape and floating dtype; same out.
    """
    inverse = torch.rsqrt(x.float().square().mean(-1, keepdim=True) + eps)
    return (x * inverse).to(x.dtype)


def fused_rms_norm(x: torch.Tensor, eps: float) -> torch.Tensor:
    """The same function through torch's operator, which is one kernel (another summation order) on CUDA."""
    return functional.rms_norm(x, x.shape[-1:], eps=eps)


def block_norm(x: torch.Tensor, eps: float, numerics: Numerics) -> torch.Tensor:
    """One or the other, as ``numerics.block_norm`` says."""
    return fused_rms_norm(x, eps) if numerics.block_norm == "fused" else rms_norm(x, eps)


class QKNorm(nn.RMSNorm):
    """RMS norm with a weight, as queries and keys have it. float32 inside.

    ``rounded-twice`` rounds to x's dtype before the weight too: so do Llama-style implementations, and norms whose
    mean is taken over several devices.
    """

    def forward(self, x: torch.Tensor, numerics: Numerics) -> torch.Tensor:  # type: ignore[override]
        """x / rms * weight over the last axis, rounded as ``numerics.qk_norm`` says; same shape and dtype."""
        if numerics.qk_norm == "rounded-once":
            return super().forward(x)
        assert self.eps is not None
        return rms_norm(x, self.eps) * self.weight


def layer_norm(x: torch.Tensor, eps: float) -> torch.Tensor:
    """(x - mean) / sqrt(var + eps) over the last axis (Ba et al. 2016, arXiv:1607.06450); same shape and dtype."""
    return functional.layer_norm(x, x.shape[-1:], eps=eps)
