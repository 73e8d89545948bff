"""Noise a latent up to a level of flow matching: where a second stage starts from, or a stage with given tokens.

The three ways are one formula, x = (1-s)*latent + s*noise, in other orders and roundings. Legend: B batch, T tokens, C
latent channels.
"""

from __future__ import annotations

import torch

from engine.numerics import Numerics
from engine.sampling.given import Given


def noised(
    latent_BTC: torch.Tensor, noise_BTC: torch.Tensor, level: float, numerics: Numerics, given: Given | None = None
) -> torch.Tensor:
    """``latent_BTC`` at noise level ``level``, in its own dtype; the noise is rounded to that dtype first.

    A token of mask m is noised to m*level. ``weighted`` and ``masked`` read given tokens from ``latent_BTC``, where
    they have to be in place; ``lerp`` takes them from ``given`` and blends the noised latent with them.
    Upstream: ``_create_noised_state`` of diffusers 0.42, ``GaussianNoiser`` of ltx-core 1.0.0 and 1.2.0.
    """
    noise = noise_BTC.to(latent_BTC.dtype)
    if numerics.noiser == "weighted":
        return _weighted(latent_BTC, noise, level, given)
    if numerics.noiser == "masked":
        return _masked(latent_BTC, noise, level, given)
    return _lerp(latent_BTC, noise, level, given)


def _weighted(latent: torch.Tensor, noise: torch.Tensor, level: float, given: Given | None) -> torch.Tensor:
    """Every operation rounded to the dtype of ``latent``; 1-s is taken in float64 where no token is given."""
    if given is None:
        return level * noise + (1 - level) * latent
    scale = level * given.mask_BT1.to(latent.dtype)
    return scale * noise + (1 - scale) * latent


def _masked(latent: torch.Tensor, noise: torch.Tensor, level: float, given: Given | None) -> torch.Tensor:
    """In float32, the dtype of the mask, then rounded once."""
    mask = torch.ones_like(latent[:1, :1, :1], dtype=torch.float32) if given is None else given.mask_BT1
    scale = mask * level
    return (noise * scale + latent * (1 - scale)).to(latent.dtype)


def _lerp(latent: torch.Tensor, noise: torch.Tensor, level: float, given: Given | None) -> torch.Tensor:
    """In float32, then rounded once."""
    x = torch.lerp(latent.float(), noise.float(), level)
    if given is not None:
        x = torch.lerp(given.clean_BTC.float(), x, given.mask_BT1)
    return x.to(latent.dtype)
