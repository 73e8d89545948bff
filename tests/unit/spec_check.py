"""Inputs and comparisons for tests against the executable specification."""

from __future__ import annotations

import torch

from reference_impl.spec.rounding import ulps

FP32, BF16 = torch.float32, torch.bfloat16
_WORDS = {FP32: torch.int32, BF16: torch.int16}
# signed zeros, smallest and largest subnormals, smallest normals, large numbers, the neighbours of 1
EDGES = (0.0, -0.0, 2.0**-133, -(2.0**-133), 2.0**-127, 2.0**-126, -(2.0**-126), 3e38, -3e38, 1e30, 1.0078125, -1.0)


def draw(dtype: torch.dtype, *shape: int, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    """Normal numbers of standard deviation ``scale``."""
    return (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale).to(dtype)


def edged(dtype: torch.dtype, *shape: int, seed: int = 0) -> torch.Tensor:
    """Normal numbers with every edge value among them, in places that depend on the seed."""
    x = draw(dtype, *shape, seed=seed)
    places = torch.randperm(x.numel(), generator=torch.Generator().manual_seed(seed + 1000))[: len(EDGES)]
    x.view(-1)[places] = torch.tensor(EDGES).to(dtype)
    return x


def small_integers(dtype: torch.dtype, *shape: int, seed: int = 0) -> torch.Tensor:
    """Numbers whose squares and sums are exact in float32 in every order."""
    return torch.randint(-8, 9, shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def differing(ours: torch.Tensor, expected: torch.Tensor) -> int:
    """How many elements have other bits; every NaN counts as one NaN."""
    wanted = expected.to(ours.dtype)
    same = ours.contiguous().view(_WORDS[ours.dtype]) == wanted.contiguous().view(_WORDS[ours.dtype])
    return int((~(same | (ours.isnan() & wanted.isnan()))).sum())


def assert_bits(ours: torch.Tensor, expected: torch.Tensor) -> None:
    """The same shape and the same bits; ``expected`` holds numbers of ours' dtype exactly."""
    assert ours.shape == expected.shape
    assert torch.equal(expected.to(ours.dtype).double().nan_to_num(), expected.nan_to_num()), "expected is not rounded"
    assert differing(ours, expected) == 0, f"{differing(ours, expected)} of {ours.numel()} elements differ"


def assert_ulps(ours: torch.Tensor, expected: torch.Tensor, limit: float, dtype: torch.dtype | None = None) -> None:
    """Within ``limit`` units in the last place of ``expected`` in ours' (or the given) dtype."""
    worst = float(ulps(ours, expected, dtype or ours.dtype).max())
    assert ours.shape == expected.shape
    assert worst <= limit, f"{worst} units in the last place, {limit} allowed"
