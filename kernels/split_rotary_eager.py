"""The eager twin of the split rotary kernel: plain torch, any device and floating dtype. It defines the result.

Legend: B batch, T tokens, H heads, d head dim, R = d/2, D = H*d.
"""

from __future__ import annotations

import torch

ROUNDINGS = ("fp32-once", "product-rounded")


def rotate(x_BTD: torch.Tensor, cos_BHTR: torch.Tensor, sin_BHTR: torch.Tensor, rounding: str) -> torch.Tensor:
    """Rotate [B,T,H*d] per head by cos and sin [B|1,H,T,R] float32; [B,T,H,d] contiguous, in x's dtype.

    The halves a, b of a head are the plane: (a*cos - b*sin, b*cos + a*sin). ``fp32-once`` computes in float32 and
    rounds the result. ``product-rounded`` rounds cos, sin and the cosine product to x's dtype, adds the sine product
    in float32 and rounds again. Source: Su et al. 2021, arXiv:2104.09864; orders: diffusers 0.42.1, ltx-core 1.0.0.
    """
    x_BHTd = x_BTD.unflatten(2, (cos_BHTR.shape[1], -1)).transpose(1, 2)
    if rounding == "product-rounded":
        cos_BHTR, sin_BHTR = cos_BHTR.to(x_BTD.dtype), sin_BHTR.to(x_BTD.dtype)
    else:
        x_BHTd = x_BHTd.float()
    first, second = x_BHTd.chunk(2, dim=-1)
    # addcmul widens to float32 and rounds once, so only the cosine product can be rounded before it
    rotated = (
        torch.addcmul(first * cos_BHTR, -sin_BHTR, second),
        torch.addcmul(second * cos_BHTR, sin_BHTR, first),
    )
    return torch.cat(rotated, dim=-1).transpose(1, 2).contiguous().to(x_BTD.dtype)
