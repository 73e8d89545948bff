"""Schedules, guidance and Euler steps against diffusers' scheduler and independent formulas."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.ltx2.pipeline_ltx2 import calculate_shift
from engine_reference import ALL_GUIDANCE, DIFFUSERS, OFF, tiny_request

from conformance.case import Guidance, Request
from conformance.errors import InputError
from engine.numerics import Numerics
from engine.sampling import euler, guidance
from engine.sampling.schedule import ScheduleConfig, given, schedule
from reference_impl.tiny.build import cached

CURVE = ScheduleConfig.load(cached("ltx-2") / "scheduler")
ONE = torch.tensor(0.725)


@pytest.mark.parametrize("tokens", [1, 24, 1024, 6144])
@pytest.mark.parametrize("steps", [2, 3, 4, 8, 15, 30, 40])
def test_schedule_is_bitwise_the_schedulers(steps: int, tokens: int) -> None:
    import numpy as np

    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(cached("ltx-2") / "scheduler")
    mu = calculate_shift(tokens, 1024, 4096, 0.95, 2.05)
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu)
    ours = schedule(steps, tokens, CURVE, DIFFUSERS)
    assert torch.equal(ours, scheduler.sigmas)
    assert torch.equal(ours[:-1] * 1000, scheduler.timesteps)


def test_schedule_from_its_definition() -> None:
    power = math.exp(2.05)
    shifted = [power / (power + steps / (5 - k) - 1) for k, steps in enumerate([5] * 5)]
    expected = [1 - (1 - s) * 0.9 / (1 - shifted[-1]) for s in shifted]
    for grid in ("float64", "float32"):
        ours = schedule(5, 24, CURVE, replace(DIFFUSERS, schedule_tokens="4096", schedule_grid=grid))
        assert ours.tolist() == pytest.approx([*expected, 0.0], abs=1e-6)


def test_schedule_of_one_step_is_refused() -> None:
    with pytest.raises(InputError, match="'steps' is 1; expected at least 2"):
        schedule(1, 24, CURVE, DIFFUSERS)
    assert given((1.0,)).tolist() == [1.0, 0.0]


def test_forwards_follow_the_request() -> None:
    def plan(request: Request, numerics: Numerics) -> tuple[tuple[str, ...], ...]:
        return guidance.forwards((request.video_guidance, request.audio_guidance), numerics)

    assert plan(tiny_request(), DIFFUSERS) == (("cond",),)
    full = tiny_request(**ALL_GUIDANCE)
    assert plan(full, DIFFUSERS) == (("uncond", "cond"), ("stg",), ("modality",))
    separate = (("cond",), ("uncond",), ("stg",), ("modality",))
    assert plan(full, replace(DIFFUSERS, cfg_batch="sequential")) == separate
    audio_only = tiny_request(audio_guidance=replace(OFF, cfg=7.0, modality=2.0))
    assert plan(audio_only, DIFFUSERS) == (("uncond", "cond"), ("modality",))


def branches(batch: int = 2) -> dict[str, torch.Tensor]:
    names = ("cond", "uncond", "stg", "modality")
    return {
        name: torch.randn((batch, 11, 16), generator=torch.Generator().manual_seed(seed)) + seed
        for seed, name in enumerate(names)
    }


@pytest.mark.parametrize("rescale", [0.0, 0.7])
def test_guidance_is_bitwise_the_pipelines_order(rescale: float) -> None:
    from diffusers.pipelines.ltx2.pipeline_ltx2 import rescale_noise_cfg

    x0, scales = branches(), Guidance(cfg=3.0, stg=1.5, modality=2.5, rescale=rescale)
    c = x0["cond"]
    cfg, stg = (scales.cfg - 1) * (c - x0["uncond"]), scales.stg * (c - x0["stg"])
    expected = c + cfg + stg + (scales.modality - 1) * (c - x0["modality"])
    if rescale:
        expected = rescale_noise_cfg(expected, c, guidance_rescale=rescale)
    assert torch.equal(guidance.combine(x0, scales, DIFFUSERS, torch.bfloat16), expected)


def test_guidance_in_float64() -> None:
    """With all scales distinct, so that swapped branches cannot cancel."""
    x0, scales = branches(1), Guidance(cfg=4.0, stg=0.5, modality=2.0, rescale=0.6)
    c, u, p, m = (x0[name].double() for name in ("cond", "uncond", "stg", "modality"))
    mixed = (1 + 3 + 0.5 + 1) * c - 3 * u - 0.5 * p - m
    expected = mixed * (0.6 * c.std() / mixed.std() + 0.4)
    for rescale in ("per-sample", "whole-tensor"):
        ours = guidance.combine(x0, scales, replace(DIFFUSERS, rescale=rescale), torch.float32)
        assert torch.allclose(ours.double(), expected, rtol=1e-5, atol=1e-5)


def test_guidance_without_branches_is_the_identity() -> None:
    x0 = {"cond": branches()["cond"]}
    assert torch.equal(guidance.combine(x0, OFF, DIFFUSERS, torch.float32), x0["cond"])


def test_euler_is_bitwise_the_schedulers_step() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(cached("ltx-2") / "scheduler")
    scheduler.set_timesteps(sigmas=[1.0, 0.5, 0.25], mu=1.1)
    x, velocity = branches()["cond"], branches()["uncond"]
    sigmas = scheduler.sigmas
    for index, t in enumerate(scheduler.timesteps):
        expected = scheduler.step(velocity, t, x, return_dict=False)[0]
        x = euler.step(x, velocity, sigmas[index], sigmas[index + 1], torch.float32)
        assert torch.equal(x, expected)


def test_velocity_and_x0_are_inverse() -> None:
    x, velocity = branches()["cond"], branches()["uncond"]
    x0 = euler.to_x0(x, velocity, ONE, torch.float32)
    assert torch.equal(x0, x - velocity * 0.725)
    assert torch.allclose(euler.to_velocity(x, x0, ONE, torch.float32), velocity, rtol=1e-5, atol=1e-5)
    last = euler.step(x, euler.to_velocity(x, x0, ONE, torch.float32), ONE, torch.tensor(0.0), torch.float32)
    assert torch.allclose(last, x0, rtol=1e-5, atol=1e-5)
