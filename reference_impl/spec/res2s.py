"""The res_2s sampler: an exponential Runge-Kutta step of two stages with noise put back in (arXiv:2308.02157).

The state is float64 through a step; the model reads it rounded to the model dtype. ``sigma`` and ``later`` are
successive noise levels, ``denoise(state, level)`` the guided and blended x0 of the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from reference_impl.spec.rounding import exact, f32, round_to

_TINY = 1e-10
Denoise = Callable[[torch.Tensor, float], torch.Tensor]


def phi(order: int, z: float) -> float:
    """(e^z - sum of z^k/k! for k < order) / z^order; its limit 1/order! near 0."""
    if abs(z) < _TINY:
        return 1.0 / math.factorial(order)
    return (math.exp(z) - sum(z**k / math.factorial(k) for k in range(order))) / z**order


@dataclass(frozen=True)
class Coefficients:
    """Stage weights for a log step h, with the second stage half way."""

    a21: float
    b1: float
    b2: float


def coefficients(h: float) -> Coefficients:
    """a21 = phi1(-h/2)/2, b2 = 2*phi2(-h), b1 = phi1(-h) - b2."""
    b2 = phi(2, -h) / 0.5
    return Coefficients(a21=0.5 * phi(1, -h * 0.5), b1=phi(1, -h) - b2, b2=b2)


def normalised(noise: torch.Tensor) -> torch.Tensor:
    """Noise of mean 0 and standard deviation 1: over everything, then over the last two axes; float64."""
    noise = (noise - noise.mean()) / noise.std()
    return (noise - noise.mean(dim=(-2, -1), keepdim=True)) / noise.std(dim=(-2, -1), keepdim=True)


def sde(
    x: torch.Tensor,
    det: torch.Tensor,
    sigma: float,
    later: float,
    noise: torch.Tensor,
    levels: torch.dtype,
    eta: float = 0.5,
) -> torch.Tensor:
    """The deterministic successor ``det`` of ``x`` with noise of level eta*later in place of part of its own.

    Arithmetic of levels is rounded to ``levels`` (float64: not at all), that of states is float64. torch's float32 root
    can be an ulp off on a CPU, where it is a library's.
    """
    s, t = (round_to(exact(level), levels) for level in (sigma, later))
    up = torch.minimum(round_to(t * eta, levels), round_to(t * round_to(exact(0.9999), levels), levels))
    if float(t) == 0 or float(up) == 0:
        return det
    squares = round_to(round_to(t * t, levels) - round_to(up * up, levels), levels)
    rest = round_to(torch.sqrt(squares), levels)
    alpha = round_to(round_to(1.0 - t, levels) + rest, levels)
    down = round_to(rest / alpha, levels)
    eps = (x - det) / round_to(s - t, levels)
    return alpha * ((x - s * eps) + down * eps) + up * noise


def blend(x: torch.Tensor, clean: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """x*mask + clean*(1 - mask) in float64, but the clean part, of float32 factors, is a float32 product."""
    return exact(x) * exact(mask) + f32(exact(clean) * f32(1.0 - exact(mask)))


def step(
    x: torch.Tensor,
    sigma: float,
    later: float,
    denoise: Denoise,
    *,
    substep_noise: torch.Tensor,
    step_noise: torch.Tensor,
    clean: torch.Tensor,
    mask: torch.Tensor,
    dtype: torch.dtype,
) -> torch.Tensor:
    """One step of a state of ``dtype``; noise as :func:`normalised` gives it, clean and mask as in :func:`blend`."""
    h = -math.log(later / sigma)
    c = coefficients(h)
    middle = math.sqrt(sigma * later)
    anchor = exact(x)
    first = exact(denoise(round_to(anchor, dtype), sigma))
    slope = first - anchor
    half_way = anchor + h * c.a21 * slope
    half_way = blend(sde(anchor, half_way, sigma, middle, substep_noise, torch.float64), clean, mask)
    if h < 0.5 and sigma > 0.03:
        for _ in range(100):
            anchor = half_way - h * c.a21 * slope
            slope = first - anchor
    second = exact(denoise(round_to(half_way, dtype), middle))
    after = anchor + h * (c.b1 * slope + c.b2 * (second - anchor))
    after = blend(sde(anchor, after, sigma, later, step_noise, torch.float32), clean, mask)
    return round_to(after, dtype)
