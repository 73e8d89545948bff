"""The specification's rounding against every bfloat16 number, hypothesis and exact rational arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from spec_check import BF16, FP32, assert_bits

from reference_impl.spec.rounding import round_to, ulps


def _all_bfloat16() -> torch.Tensor:
    return torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(BF16)


def test_every_bfloat16_is_its_own_rounding() -> None:
    values = _all_bfloat16()
    assert_bits(values, round_to(values.double(), BF16))
    assert_bits(values.float(), round_to(values.double(), FP32))


def test_ties_go_to_even() -> None:
    values = _all_bfloat16()
    values = values[values.isfinite()].double().sort().values.unique()
    middles = (values[:-1] + values[1:]) / 2
    even = torch.where((values[:-1].bfloat16().view(torch.int16) & 1) == 0, values[:-1], values[1:])
    assert torch.equal(round_to(middles, BF16), even)
    above = torch.nextafter(middles, torch.full_like(middles, torch.inf))
    assert torch.equal(round_to(above, BF16), values[1:])


def test_overflow_and_what_is_not_finite() -> None:
    x = torch.tensor(
        [3.4e38, -3.4e38, 1e300, float("inf"), float("-inf"), float("nan"), -0.0, 1e-300], dtype=torch.float64
    )
    assert str(round_to(x, BF16).tolist()) == "[inf, -inf, inf, inf, -inf, nan, -0.0, 0.0]"


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_float32_is_the_processors(value: float) -> None:
    with np.errstate(over="ignore"):
        expected = float(np.float32(value))
    assert str(float(round_to(torch.tensor(value, dtype=torch.float64), FP32))) == str(expected)


@given(st.floats(width=32, allow_nan=False, allow_infinity=False), st.floats(-1e3, 1e3, width=32))
def test_one_step_to_bfloat16_is_the_nearest(x: float, y: float) -> None:
    """A float64 value just off a tie of bfloat16, which two roundings would get wrong."""
    value = torch.tensor(x, dtype=torch.float64) + torch.tensor(y, dtype=torch.float64) * 2.0**-40
    rounded = round_to(value, BF16)
    if not torch.isfinite(rounded):
        return
    distance = abs(Fraction(float(value)) - Fraction(float(rounded)))
    bits = torch.tensor([float(rounded)]).bfloat16().view(torch.int16)
    for step in (-1, 1):
        neighbour = float((bits + step).view(BF16))
        if np.isfinite(neighbour):
            assert distance <= abs(Fraction(float(value)) - Fraction(neighbour))


def test_units_in_the_last_place() -> None:
    x = torch.tensor([1.0, 255.0, -3.0, 2.0**-133])
    off = x.double() + torch.tensor([2.0**-7, 3.0, 2.0**-6, 2.0**-133])
    assert ulps(off, x, BF16).tolist() == [1.0, 3.0, 1.0, 1.0]
