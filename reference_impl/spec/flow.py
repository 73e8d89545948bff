"""Flow matching: x = (1 - sigma)*x0 + sigma*noise, velocity = noise - x0 (Lipman et al. 2022, arXiv:2210.02747).

``sigma`` is a float32 number, or one per token [B,T,1]. Everything is float32 with one last rounding to ``dtype``.
"""

from __future__ import annotations

import torch

from reference_impl.spec.rounding import exact, f32, round_to


def x0_from_velocity(x: torch.Tensor, velocity: torch.Tensor, sigma: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """x - velocity*sigma."""
    return round_to(f32(exact(x) - f32(exact(velocity) * exact(sigma))), dtype)


def velocity_from_x0(x: torch.Tensor, x0: torch.Tensor, sigma: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """(x - x0) / sigma."""
    return round_to(f32(f32(exact(x) - exact(x0)) / exact(sigma)), dtype)


def euler_step(
    x: torch.Tensor, velocity: torch.Tensor, sigma: torch.Tensor, later: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    """x + (later - sigma)*velocity."""
    return round_to(f32(exact(x) + f32(f32(exact(later) - exact(sigma)) * exact(velocity))), dtype)


def noised_weighted(latent: torch.Tensor, noise: torch.Tensor, scale: float) -> torch.Tensor:
    """scale*noise + (1 - scale)*latent in float32; 1 - scale is taken before scale is rounded."""
    kept = f32(exact(1.0 - scale))
    return f32(f32(f32(exact(scale)) * exact(noise)) + f32(kept * exact(latent)))


def noised_masked(
    latent: torch.Tensor, noise: torch.Tensor, mask: torch.Tensor, scale: float, dtype: torch.dtype
) -> torch.Tensor:
    """noise*(mask*scale) + latent*(1 - mask*scale): weights float32, so are products and sum; one rounding."""
    weight = f32(exact(mask) * f32(exact(scale)))
    return round_to(f32(f32(exact(noise) * weight) + f32(exact(latent) * f32(1.0 - weight))), dtype)


def lerp(start: torch.Tensor, end: torch.Tensor, weight: torch.Tensor, *, fused: bool = True) -> torch.Tensor:
    """start + weight*(end - start) in float32, from ``end`` backwards for weights of 0.5 and more."""
    start, end, weight = exact(start), exact(end), exact(weight)
    difference = f32(end - start)
    stage = (lambda x: x) if fused else f32
    forwards = f32(start + stage(weight * difference))
    backwards = f32(end - stage(difference * f32(1.0 - weight)))
    return torch.where(weight.abs() < 0.5, forwards, backwards)


def noised_lerped(
    latent: torch.Tensor,
    clean: torch.Tensor,
    noise: torch.Tensor,
    mask: torch.Tensor,
    scale: float,
    dtype: torch.dtype,
    *,
    fused: bool = True,
) -> torch.Tensor:
    """lerp(clean, lerp(latent, noise, scale), mask), both in float32, one rounding."""
    noised = lerp(latent, noise, f32(exact(scale)).expand_as(noise), fused=fused)
    return round_to(lerp(clean, noised, exact(mask).expand_as(noised), fused=fused), dtype)


def blend(x0: torch.Tensor, clean: torch.Tensor, mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """x0*mask + clean*(1 - mask) in float32, one rounding: given tokens keep their clean value."""
    kept = f32(exact(clean) * f32(1.0 - exact(mask)))
    return round_to(f32(f32(exact(x0) * exact(mask)) + kept), dtype)
