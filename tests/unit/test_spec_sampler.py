"""Noisers, given tokens and the res_2s sampler of the engine against the executable specification."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from engine_reference import DIFFUSERS
from spec_check import BF16, FP32, assert_bits, draw

from engine.numerics import Numerics
from engine.sampling import noiser, res2s
from engine.sampling.given import Given, restore
from reference_impl.spec import flow
from reference_impl.spec import res2s as spec
from reference_impl.spec.rounding import exact, round_to

DTYPES = (FP32, BF16)
SCALE = 0.909375
LEVELS = (1.0, SCALE, 0.725, 0.421875, 0.0011)


def _mask(tokens: int) -> torch.Tensor:
    """Given, noisy and in between, on both sides of one half."""
    mask = torch.rand(1, tokens, 1, generator=torch.Generator().manual_seed(3))
    mask[:, :4], mask[:, 4:8], mask[:, 8:10] = 0.0, 1.0, 0.5
    return mask


def _numerics(choice: Any) -> Numerics:
    return replace(DIFFUSERS, noiser=choice)


def test_weighted_noise() -> None:
    latent, noise = draw(FP32, 1, 40, 16), draw(FP32, 1, 40, 16, seed=1)
    ours = noiser.noised(latent, noise, SCALE, _numerics("weighted"))
    assert_bits(ours, flow.noised_weighted(latent, noise, SCALE))


@pytest.mark.parametrize("dtype", DTYPES)
def test_masked_noise(dtype: torch.dtype) -> None:
    latent, noise, mask = draw(dtype, 1, 40, 16), draw(FP32, 1, 40, 16, seed=1), _mask(40)
    ours = noiser.noised(latent, noise, SCALE, _numerics("masked"), Given(mask_BT1=mask, clean_BTC=latent))
    assert_bits(ours, flow.noised_masked(latent, noise.to(dtype), mask, SCALE, dtype))
    everywhere = flow.noised_masked(latent, noise.to(dtype), torch.ones(1, 1, 1), SCALE, dtype)
    assert_bits(noiser.noised(latent, noise, SCALE, _numerics("masked")), everywhere)


@pytest.mark.parametrize("dtype", DTYPES)
def test_interpolated_noise(dtype: torch.dtype) -> None:
    """With a fused multiply-add or without, as the processor has it."""
    latent, clean, noise = (draw(dtype, 1, 40, 16, seed=seed) for seed in range(3))
    mask = _mask(40)
    ours = noiser.noised(latent, noise, SCALE, _numerics("lerp"), Given(mask_BT1=mask, clean_BTC=clean))
    ways = [flow.noised_lerped(latent, clean, noise, mask, SCALE, dtype, fused=fused) for fused in (True, False)]
    assert bool(((ours == ways[0]) | (ours == ways[1])).all())
    assert ours.dtype == dtype


@pytest.mark.parametrize("dtype", DTYPES)
def test_given_tokens_are_restored(dtype: torch.dtype) -> None:
    x0, clean, mask = draw(dtype, 1, 40, 16), draw(dtype, 1, 40, 16, seed=1), _mask(40)
    assert_bits(restore(x0, Given(mask_BT1=mask, clean_BTC=clean)), flow.blend(x0, clean, mask, dtype))


def test_second_order_weights() -> None:
    levels = torch.tensor(LEVELS)
    for c, (now, later) in zip(res2s.coefficients(levels, DIFFUSERS), itertools.pairwise(levels.tolist()), strict=True):
        expected = spec.coefficients(-math.log(later / now))
        assert (c.a21, c.b1, c.b2) == pytest.approx((expected.a21, expected.b1, expected.b2), rel=1e-13)


def test_second_order_weights_near_zero() -> None:
    """The formula cancels there; below 1e-10 its limits are taken. At 1e-3 against the series."""
    assert spec.coefficients(1e-12) == spec.Coefficients(a21=0.5, b1=0.0, b2=1.0)
    assert spec.phi(1, -1e-3) == pytest.approx(1 - 1e-3 / 2 + 1e-6 / 6, rel=1e-9)
    assert spec.phi(2, -1e-3) == pytest.approx(1 / 2 - 1e-3 / 6 + 1e-6 / 24, rel=1e-9)


@pytest.mark.parametrize("levels", [FP32, torch.float64])
def test_renewed_noise(levels: torch.dtype) -> None:
    x, det, noise = (draw(torch.float64, 1, 40, 16, seed=seed) for seed in range(3))
    for now, later in itertools.pairwise(torch.tensor((*LEVELS[:3], 0.5, *LEVELS[3:]), dtype=levels)):
        ours = res2s.renew(x, det, now, later, noise)
        expected = spec.sde(x, det, float(now), float(later), noise, levels)
        # the root of 0.421875^2 - 0.2109375^2 is an ulp off in torch's float32
        assert torch.equal(ours, expected) or (later == 0.421875 and levels == FP32)
        assert (ours - expected).norm() < 1e-7 * expected.norm()
    raw = draw(torch.float64, 2, 40, 16)
    assert torch.equal(res2s.standardised(raw, FP32, DIFFUSERS), spec.normalised(raw))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("masked", [False, True])
def test_res2s(dtype: torch.dtype, masked: bool) -> None:
    """Two steps over a stub model and the last evaluation; the first step is long, the second refines its anchor."""
    shapes, sigmas = {"video": (1, 40, 16), "audio": (1, 7, 16)}, (0.9, 0.5, 0.35, 0.0)
    given = {"video": Given(mask_BT1=_mask(40), clean_BTC=draw(dtype, *shapes["video"], seed=8))} if masked else None
    start = {stream: draw(dtype, *shape, seed=seed) for seed, (stream, shape) in enumerate(shapes.items())}

    def model(x: torch.Tensor, level: float) -> torch.Tensor:
        return (torch.sin(x.float() * (1.0 + level)) * 0.8).to(dtype)

    def evaluate(step: int, half: int, states: res2s.States, level: torch.Tensor) -> res2s.States:
        assert all(x.dtype == dtype for x in states.values())
        return {stream: model(x, float(level)) for stream, x in states.items()}

    def draws(seed: int) -> res2s.Draw:
        generator = torch.Generator().manual_seed(seed)
        return lambda shape: torch.randn(shape, generator=generator, dtype=torch.float64)

    ours = res2s.sample(
        evaluate,
        start,
        torch.tensor(sigmas),
        draw_step=draws(1),
        draw_substep=draws(2),
        numerics=DIFFUSERS,
        given=given,
    )
    step_draw, substep_draw = draws(1), draws(2)
    ones = {stream: torch.ones(1, shape[1], 1) for stream, shape in shapes.items()}
    masks = ones | ({"video": _mask(40)} if masked else {})
    cleans = start | ({"video": given["video"].clean_BTC} if given else {})

    def denoise(stream: str) -> spec.Denoise:
        return lambda x, level: flow.blend(model(x.to(dtype), level), cleans[stream], masks[stream], dtype)

    state = {stream: exact(x) for stream, x in start.items()}
    levels = torch.tensor((*sigmas[:-1], 0.0011)).tolist()
    for now, later in itertools.pairwise(levels):
        noises = {
            stream: (spec.normalised(substep_draw(shape)), spec.normalised(step_draw(shape)))
            for stream, shape in shapes.items()
        }
        state = {
            stream: spec.step(
                state[stream],
                now,
                later,
                denoise(stream),
                substep_noise=noises[stream][0],
                step_noise=noises[stream][1],
                clean=cleans[stream],
                mask=masks[stream],
                dtype=dtype,
            )
            for stream in shapes
        }
    for stream in shapes:
        assert_bits(ours[stream], round_to(denoise(stream)(state[stream], levels[-1]), dtype))
