"""How much of a bf16 result a wrong rounding changes, operation by operation: what the bitwise tests can see.

A model of six layers hides all of these in its own 0.9 % of rounding noise.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from spec_check import BF16, FP32, differing, draw

from reference_impl.spec import flow, guidance, layers, rotary
from reference_impl.spec.rounding import exact, f32, round_to

Pair = tuple[torch.Tensor, torch.Tensor]


def _tables() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    angle = f32(torch.rand((1, 4, 64, 32), generator=torch.Generator().manual_seed(1)).double() * 6.0)
    return draw(BF16, 1, 64, 256), f32(torch.cos(angle)), f32(torch.sin(angle))


def _rotary(other: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]) -> Pair:
    x, cos, sin = _tables()
    return rotary.rotate(x, cos, sin, "product-rounded", BF16), other(x, cos, sin)


def _three_roundings(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Both products rounded, then the sum."""
    cos, sin = round_to(cos, BF16), round_to(sin, BF16)
    halves = exact(x).unflatten(2, (4, 64)).transpose(1, 2)
    a, b = halves[..., :32], halves[..., 32:]
    both = (round_to(a * cos, BF16) - round_to(b * sin, BF16), round_to(b * cos, BF16) + round_to(a * sin, BF16))
    return round_to(torch.cat(both, -1), BF16).transpose(1, 2)


def _fp32_on_rounded_tables(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    return rotary.rotate(x, round_to(cos, BF16), round_to(sin, BF16), "fp32-once", BF16)


def _fp32_once(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    return rotary.rotate(x, cos, sin, "fp32-once", BF16)


def _qk_norm() -> Pair:
    x, weight = draw(BF16, 64, 256), (1 + 0.1 * draw(FP32, 256, seed=1)).bfloat16()
    once, twice = (layers.weighted_rms_norm(x, weight, 1e-6, BF16, twice=twice) for twice in (False, True))
    return once, twice


def _branches() -> list[torch.Tensor]:
    return [draw(BF16, 4096, seed=seed) for seed in range(4)]


def _guider() -> Pair:
    c, u, p, m = _branches()
    terms = [(2.0, u), (1.0, p), (2.0, m)]
    return guidance.combine(c, terms, FP32, BF16), guidance.combine(c, terms, BF16, BF16)


def _folded() -> Pair:
    """(cfg + stg + modality - 1)*c - 2u - p - 2m instead of differences, in bf16."""
    c, u, p, m = _branches()
    folded = round_to(exact(c) * 6.0, BF16)
    for weight, branch in ((2.0, u), (1.0, p), (2.0, m)):
        folded = round_to(folded - round_to(weight * exact(branch), BF16), BF16)
    return guidance.combine(c, [(2.0, u), (1.0, p), (2.0, m)], BF16, BF16), folded


def _velocity_through_x0() -> Pair:
    x, velocity, sigma = draw(BF16, 4096), draw(BF16, 4096, seed=1), torch.tensor(0.725)
    x0 = flow.x0_from_velocity(x, velocity, sigma, BF16)
    return exact(velocity), flow.velocity_from_x0(x, x0, sigma, BF16)


FIGURES: dict[str, tuple[Callable[[], Pair], float]] = {
    "rotary with three roundings": (lambda: _rotary(_three_roundings), 0.23),
    "rotary in float32 on rounded tables": (lambda: _rotary(_fp32_on_rounded_tables), 0.21),
    "rotary in float32": (lambda: _rotary(_fp32_once), 0.33),
    "q and k norm rounded twice": (_qk_norm, 0.25),
    "guider in bf16": (_guider, 0.38),
    "folded guidance": (_folded, 0.5),
    "velocity through a rounded x0": (_velocity_through_x0, 0.41),
}


@pytest.mark.parametrize("name", FIGURES)
def test_share_of_changed_elements(name: str) -> None:
    pair, share = FIGURES[name]
    expected, changed = pair()
    measured = differing(changed.bfloat16(), expected) / changed.numel()
    assert share - 0.1 < measured < share + 0.1, measured
