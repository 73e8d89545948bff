"""Combining the branches of a guided step.

Sources: Ho and Salimans 2022, arXiv:2207.12598; Hyung et al. 2024, arXiv:2411.18664; Lin et al. 2023, arXiv:2305.08891.
"""

from __future__ import annotations

import torch

from reference_impl.spec.rounding import exact, f32, round_to


def combine(
    cond: torch.Tensor, terms: list[tuple[float, torch.Tensor]], work: torch.dtype, dtype: torch.dtype
) -> torch.Tensor:
    """c + w1*(c - b1) + w2*(c - b2) + ..., in this order, every operation rounded to ``work``, the result to ``dtype``.

    terms: weight and branch: cfg - 1 and uncond, stg and perturbed, modality - 1 and isolated. A weight is a Python
    number: torch multiplies by it in float32.
    """
    c = round_to(exact(cond), work)
    guided = c
    for weight, branch in terms:
        away = round_to(c - round_to(exact(branch), work), work)
        guided = round_to(guided + round_to(f32(f32(exact(weight)) * away), work), work)
    return round_to(guided, dtype)


def std(x: torch.Tensor, dims: tuple[int, ...] | None = None) -> torch.Tensor:
    """Unbiased standard deviation over ``dims`` (kept), or over everything; float64, not rounded."""
    x = exact(x)
    axes = tuple(range(x.ndim)) if dims is None else dims
    count = 1
    for axis in axes:
        count *= x.shape[axis]
    mean = x.sum(axes, keepdim=True) / count
    return torch.sqrt(((x - mean) ** 2).sum(axes, keepdim=True) / (count - 1))


def rescale_per_sample(
    guided: torch.Tensor, cond_std: torch.Tensor, guided_std: torch.Tensor, weight: float, work: torch.dtype
) -> torch.Tensor:
    """weight*(g*(sc/sg)) + (1 - weight)*g, every operation rounded to ``work``; a std per sample."""
    g = exact(guided)
    scaled = round_to(g * round_to(exact(cond_std) / exact(guided_std), work), work)
    kept = round_to(f32(f32(exact(1.0 - weight)) * g), work)
    return round_to(round_to(f32(f32(exact(weight)) * scaled), work) + kept, work)


def rescale_whole_tensor(
    guided: torch.Tensor, cond_std: torch.Tensor, guided_std: torch.Tensor, weight: float, work: torch.dtype
) -> torch.Tensor:
    """g*(weight*(sc/sg) + (1 - weight)), one std for everything, every operation rounded to ``work``.

    The factor is a tensor without axes, where torch on a CPU multiplies by a Python number unrounded (the product
    passes through float32) and rounds one that it adds to ``work`` first.
    """
    ratio = round_to(exact(cond_std) / exact(guided_std), work)
    factor = round_to(f32(weight * ratio), work)
    factor = round_to(factor + round_to(exact(1.0 - weight), work), work)
    return round_to(exact(guided) * factor, work)
