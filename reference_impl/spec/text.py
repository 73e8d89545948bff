"""Feature extraction in front of the text connectors. Legend: B batch, T text tokens, D encoder width, L layers."""

from __future__ import annotations

import math

import torch

from reference_impl.spec.rounding import exact, f32, round_to

_EPS = 1e-6


def range_norm(x_BTDL: torch.Tensor, valid_BT: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """LTX-2.0: 8*(x - mean)/(max - min) of each prompt and layer over its valid tokens -> [B,T,D*L], pads 0.

    The sum is rounded to ``dtype``, the range twice: as a difference and with the 1e-6; all else is float32.
    """
    batch, tokens, width, layers = x_BTDL.shape
    out = torch.zeros(batch, tokens, width, layers, dtype=torch.float64)
    for b in range(batch):
        rows = valid_BT[b].bool()
        for layer in range(layers):
            x = exact(x_BTDL[b, rows, :, layer])
            total = round_to(x.sum(), dtype)
            mean = f32(total / f32(exact(float(int(rows.sum()) * width)) + _EPS))
            extent = round_to(round_to(x.max() - x.min(), dtype) + _EPS, dtype)
            out[b, rows, :, layer] = round_to(f32(f32(x - mean) / extent) * 8.0, dtype)
    return out.flatten(2)


def inverse_rms(x_BTDL: torch.Tensor, work: torch.dtype, root_dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """1/sqrt(mean over D of x^2 + 1e-6) [B,T,1,L]; square, mean, sum and result are rounded to ``work`` each.

    root_dtype: what the root is rounded to. torch on a CPU takes roots of bfloat16 in float32 for whole vectors, and
    in bfloat16 for the elements left over behind the last whole vector of the tensor.
    """
    x = exact(x_BTDL)
    mean = round_to(round_to(x * x, work).sum(2, keepdim=True) / x.shape[2], work)
    root = round_to(torch.sqrt(round_to(mean + _EPS, work)), root_dtype)
    return round_to(f32(1.0 / root), work)


def token_norm(x_BTDL: torch.Tensor, valid_BT: torch.Tensor, dtype: torch.dtype, work: torch.dtype) -> torch.Tensor:
    """LTX-2.3: x / rms over D of each token and layer -> [B,T,D*L], pads 0.

    The inverse root and its product with x are rounded to ``work``, the result to ``dtype``.
    """
    x, inverse = exact(x_BTDL), inverse_rms(x_BTDL, work)
    normed = round_to(round_to(x * inverse, work), dtype).flatten(2)
    return torch.where(valid_BT.bool()[:, :, None], normed, torch.zeros_like(normed))


def widened(features: torch.Tensor, target: int, source: int, dtype: torch.dtype) -> torch.Tensor:
    """features * sqrt(target/source), the factor a float32 number."""
    return round_to(f32(exact(features) * f32(exact(math.sqrt(target / source)))), dtype)
