"""Tokens that a request gives: how much of each is denoised, and what it is when clean.

Legend: B batch, T tokens of a stream, C latent channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, kw_only=True)
class Given:
    """mask_BT1: float32, 1 for a token that is denoised, 0 for one that stays, between for one that changes a little.
    clean_BTC: what a token with a mask below 1 is when clean; other tokens are not read.
    """

    mask_BT1: torch.Tensor
    clean_BTC: torch.Tensor


def restore(x_BTC: torch.Tensor, given: Given | None) -> torch.Tensor:
    """x*mask + clean*(1-mask) in float32 or the wider dtype of ``x``, rounded to the dtype of ``x``."""
    if given is None:
        return x_BTC
    mask = given.mask_BT1
    return (x_BTC * mask + given.clean_BTC.float() * (1 - mask)).to(x_BTC.dtype)
