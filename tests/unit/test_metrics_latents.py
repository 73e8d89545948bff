"""Latent metrics against definitions written out here, in Python floats."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance.metrics import REGISTRY
from conformance.metrics.hash_equal import hash_equal
from conformance.metrics.latents_norm_error import norm_ratio

rel_l2, max_abs, norm_error, cosine = (
    REGISTRY[f"latents.{name}"].function for name in ("rel_l2", "max_abs", "norm_error", "cosine")
)


def latent(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def norm(values: list[float]) -> float:
    return math.sqrt(math.fsum(v * v for v in values))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_definitions(dtype: torch.dtype) -> None:
    a, b = latent(1, 3, 50, dtype=dtype), latent(2, 3, 50, dtype=dtype)
    x, y = a.double().flatten().tolist(), b.double().flatten().tolist()
    difference = [p - q for p, q in zip(x, y, strict=True)]
    assert rel_l2(a, b) == pytest.approx(norm(difference) / norm(y), rel=1e-12)
    assert max_abs(a, b) == max(abs(d) for d in difference)
    assert norm_ratio(a, b) == pytest.approx(norm(x) / norm(y), rel=1e-12)
    assert norm_error(a, b) == pytest.approx(abs(norm(x) / norm(y) - 1), rel=1e-9)
    dot = math.fsum(p * q for p, q in zip(x, y, strict=True))
    assert cosine(a, b) == pytest.approx(dot / (norm(x) * norm(y)), rel=1e-9)


def test_float64_is_used_for_small_differences() -> None:
    b = torch.ones(1000)
    a = b.clone()
    a[0] += 2**-23
    assert rel_l2(a, b) == pytest.approx(2**-23 / math.sqrt(1000), rel=1e-12)


def test_zero_references() -> None:
    zero, one = torch.zeros(4), torch.ones(4)
    assert (rel_l2(zero, zero), norm_ratio(zero, zero), norm_error(zero, zero), cosine(zero, zero)) == (0, 1, 0, 1)
    assert (rel_l2(one, zero), norm_ratio(one, zero), norm_error(one, zero)) == (math.inf,) * 3
    assert (cosine(one, zero), cosine(zero, one)) == (0, 0)
    assert (rel_l2(zero, one), norm_error(zero, one)) == (1, 1)


def test_empty_tensors_are_equal() -> None:
    empty = torch.zeros(0, 4)
    assert (rel_l2(empty, empty), max_abs(empty, empty), norm_error(empty, empty), cosine(empty, empty)) == (0, 0, 0, 1)


@pytest.mark.parametrize("function", [rel_l2, max_abs, norm_error, cosine])
@pytest.mark.parametrize("reference", [torch.ones(4), torch.zeros(4)])
def test_nan_stays_nan(function: object, reference: torch.Tensor) -> None:
    assert callable(function)
    assert math.isnan(function(torch.tensor([1.0, math.nan, 2.0, 3.0]), reference))


def test_what_each_one_sees() -> None:
    a = latent(5, 100)
    assert cosine(3 * a, a) == pytest.approx(1, abs=1e-12)
    assert norm_error(3 * a, a) == pytest.approx(2, rel=1e-6)
    assert norm_error(-a, a) == 0
    assert cosine(-a, a) == -1


def test_hash_sees_dtype_shape_and_sign_of_zero() -> None:
    a = latent(6, 2, 3)
    assert hash_equal(a, a.clone())
    assert not hash_equal(a, a.double())
    assert not hash_equal(a, a.reshape(3, 2))
    assert not hash_equal(torch.tensor([0.0]), torch.tensor([-0.0]))
    assert hash_equal(a.t().contiguous().t(), a)


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), size=st.integers(1, 60), factor=st.floats(1.01, 50))
def test_identity_scaling_and_monotonicity(seed: int, size: int, factor: float) -> None:
    b, direction = latent(seed, size), latent(seed + 1, size)
    assert (rel_l2(b, b), max_abs(b, b), norm_error(b, b), cosine(b, b)) == (0, 0, 0, 1)
    near, far = b + 0.01 * direction, b + 0.01 * factor * direction
    assert rel_l2(far.double(), b) >= rel_l2(near.double(), b) * (1 - 1e-4)
    near64, far64 = b.double() + 0.01 * direction.double(), b.double() + 0.01 * factor * direction.double()
    assert rel_l2(far64, b) == pytest.approx(factor * rel_l2(near64, b), rel=1e-6)
    assert max_abs(far64, b) > max_abs(near64, b)
    assert cosine(near64, b) == pytest.approx(cosine(b, near64), rel=1e-12)
    assert rel_l2(4 * near64, 4 * b.double()) == rel_l2(near64, b.double())
