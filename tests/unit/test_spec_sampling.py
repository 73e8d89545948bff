"""Schedule, guidance and Euler steps of the engine against the executable specification."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from engine_reference import DIFFUSERS
from hypothesis import given, settings
from hypothesis import strategies as st
from spec_check import BF16, FP32, assert_bits, assert_ulps, draw, edged

from conformance.case import Guidance
from engine.sampling import euler, guidance
from engine.sampling.schedule import ScheduleConfig, schedule
from reference_impl.spec import flow
from reference_impl.spec import guidance as spec
from reference_impl.spec import schedule as spec_schedule
from reference_impl.spec.rounding import round_to
from reference_impl.tiny.build import cached

DTYPES = (FP32, BF16)
NAMES = {FP32: "float32", BF16: "model"}
LEVELS = (1.0, 0.909375, 0.725, 0.421875, 0.0011)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("per_token", [False, True])
def test_conversions_and_the_euler_step(dtype: torch.dtype, per_token: bool) -> None:
    x, other = edged(dtype, 2, 33, 16), edged(dtype, 2, 33, 16, seed=1)
    for now, later in zip(LEVELS, (*LEVELS[1:], 0.0), strict=True):
        sigma, after = torch.tensor(now), torch.tensor(later)
        if per_token:
            sigma, after = (
                level * torch.rand(2, 33, 1, generator=torch.Generator().manual_seed(2)) for level in (sigma, after)
            )
        assert_bits(euler.to_x0(x, other, sigma, dtype), flow.x0_from_velocity(x, other, sigma, dtype))
        assert_bits(euler.to_velocity(x, other, sigma, dtype), flow.velocity_from_x0(x, other, sigma, dtype))
        assert_bits(euler.step(x, other, sigma, after, dtype), flow.euler_step(x, other, sigma, after, dtype))


@settings(max_examples=50)
@given(st.floats(-100, 100, width=16), st.floats(-100, 100, width=16), st.floats(2.0**-20, 1, width=32))
def test_conversions_of_any_numbers(x: float, other: float, level: float) -> None:
    for dtype in DTYPES:
        a, b, sigma = torch.tensor([x]).to(dtype), torch.tensor([other]).to(dtype), torch.tensor(level)
        assert_bits(euler.to_x0(a, b, sigma, dtype), flow.x0_from_velocity(a, b, sigma, dtype))
        assert_bits(euler.to_velocity(a, b, sigma, dtype), flow.velocity_from_x0(a, b, sigma, dtype))


SCALES = Guidance(cfg=3.0, stg=1.3, modality=2.6, rescale=0.7)


def _branches(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    names = ("cond", "uncond", "stg", "modality")
    x0 = {name: draw(dtype, 3, 33, 16, seed=seed) for seed, name in enumerate(names)}
    x0["cond"][1] *= 3
    return x0


def _combined(x0: dict[str, torch.Tensor], scales: Guidance, work: torch.dtype) -> torch.Tensor:
    terms = [(scales.cfg - 1, x0["uncond"]), (scales.stg, x0["stg"]), (scales.modality - 1, x0["modality"])]
    return spec.combine(x0["cond"], terms, work, work)


@pytest.mark.parametrize("stored", DTYPES)
@pytest.mark.parametrize("work", DTYPES)
def test_guided_x0(stored: torch.dtype, work: torch.dtype) -> None:
    x0, scales = _branches(stored), replace(SCALES, rescale=0.0)
    ours = guidance.combine(x0, scales, replace(DIFFUSERS, guider_dtype=NAMES[work]), BF16)
    assert ours.dtype == stored
    assert_bits(ours, round_to(_combined(x0, scales, work), stored))


@pytest.mark.parametrize("dtype", DTYPES)
def test_standard_deviations(dtype: torch.dtype) -> None:
    """torch sums in its own order: an ulp or two of float32, nothing after a rounding to bf16."""
    x = _branches(dtype)["cond"]
    whole = spec.std(x).reshape(())
    each = spec.std(x, (1, 2))
    if dtype == BF16:
        assert_bits(x.std(), round_to(whole, BF16))
        assert_bits(x.std(dim=(1, 2), keepdim=True), round_to(each, BF16))
    else:
        assert_ulps(x.std(), whole, 2)
        assert_ulps(x.std(dim=(1, 2), keepdim=True), each, 2)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rescale_per_sample(dtype: torch.dtype) -> None:
    x0 = _branches(dtype)
    guided = _combined(x0, SCALES, dtype).to(dtype)
    axes = (1, 2)
    stds = [x.std(dim=axes, keepdim=True) for x in (x0["cond"], guided)]
    ours = guidance.rescale(guided, x0["cond"], 0.7, DIFFUSERS)
    assert_bits(ours, spec.rescale_per_sample(guided, stds[0], stds[1], 0.7, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_rescale_of_the_whole_tensor(dtype: torch.dtype) -> None:
    x0 = _branches(dtype)
    guided = _combined(x0, SCALES, dtype).to(dtype)
    ours = guidance.rescale(guided, x0["cond"], 0.7, replace(DIFFUSERS, rescale="whole-tensor"))
    assert_bits(ours, spec.rescale_whole_tensor(guided, x0["cond"].std(), guided.std(), 0.7, dtype))


@pytest.mark.parametrize("tokens", [24, 1024, 4096, 6144])
@pytest.mark.parametrize("steps", [2, 3, 7, 8, 15, 30, 40])
def test_schedule(steps: int, tokens: int) -> None:
    config = ScheduleConfig.load(cached("ltx-2") / "scheduler")
    for grid, dtype in (("float64", torch.float64), ("float32", FP32)):
        for shift in ("quotient", "reciprocal"):
            numerics = replace(DIFFUSERS, schedule_grid=grid, schedule_shift=shift)
            expected = spec_schedule.levels(steps, tokens, dtype, reciprocal=shift == "reciprocal")
            assert_bits(schedule(steps, tokens, config, numerics), expected)
