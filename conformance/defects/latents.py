"""Damage to final latents: what a wrong shard, mask, scale or cast leaves in them.

Each function takes one packed stream [B,T,C] and returns a damaged copy of the same dtype.
Shapes: B (outputs), T (tokens), C (channels).
"""

from __future__ import annotations

import torch


def latent_channel_bad(latents_BTC: torch.Tensor) -> torch.Tensor:
    """The middle channel is zero in every token."""
    damaged = latents_BTC.clone()
    damaged[..., damaged.shape[-1] // 2] = 0
    return damaged


def latent_tokens_bad(latents_BTC: torch.Tensor) -> torch.Tensor:
    """A block of 1/16 of the tokens, at least one, in the middle is zero."""
    damaged, tokens = latents_BTC.clone(), latents_BTC.shape[1]
    block = max(1, tokens // 16)
    start = (tokens - block + 1) // 2
    damaged[:, start : start + block] = 0
    return damaged


def latents_scaled_1_01(latents_BTC: torch.Tensor) -> torch.Tensor:
    """One percent too large."""
    return latents_BTC * 1.01


def latents_bf16(latents_BTC: torch.Tensor) -> torch.Tensor:
    """Rounded to bf16 and back."""
    return latents_BTC.bfloat16().to(latents_BTC.dtype)
