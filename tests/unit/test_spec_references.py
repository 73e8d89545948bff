"""The specification against diffusers' own functions: who checks the checker."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.models.embeddings import get_timestep_embedding
from diffusers.models.normalization import RMSNorm
from diffusers.models.transformers.transformer_ltx2 import apply_split_rotary_emb
from diffusers.pipelines.ltx2.connectors import per_layer_masked_mean_norm, per_token_rms_norm
from diffusers.pipelines.ltx2.pipeline_ltx2 import LTX2Pipeline, calculate_shift, rescale_noise_cfg
from spec_check import BF16, FP32, assert_bits, draw, edged, small_integers

from reference_impl.spec import flow, guidance, layers, rotary, schedule, text
from reference_impl.tiny.build import cached

DTYPES = (FP32, BF16)


def test_rotary() -> None:
    angle = torch.rand((2, 4, 33, 8), generator=torch.Generator().manual_seed(1)) * 6
    x = edged(BF16, 2, 33, 64)
    theirs = apply_split_rotary_emb(x, (angle.cos(), angle.sin()))
    assert_bits(theirs, rotary.rotate(x, angle.cos(), angle.sin(), "fp32-once", BF16).flatten(2))


def test_norms() -> None:
    """diffusers' class rounds twice once it has a weight; its blocks use it without one."""
    x, weight = small_integers(BF16, 64, 256), draw(BF16, 256, seed=1)
    assert_bits(RMSNorm(256, 1e-6, elementwise_affine=False)(x), layers.rms_norm(x, 1e-6, BF16))
    weighted = RMSNorm(256, 1e-6).to(BF16)
    weighted.weight.data = weight
    assert_bits(weighted(x), layers.weighted_rms_norm(x, weight, 1e-6, BF16, twice=True))


def test_sinusoid() -> None:
    t = torch.tensor([0.0, 1000.0, 999.37, 421.875, 1e-3])
    theirs = get_timestep_embedding(t, 256, flip_sin_to_cos=True, downscale_freq_shift=0)
    assert (theirs.double() - layers.sinusoid(t)).abs().max() < 1.2e-7


def test_rescale() -> None:
    cond, guided = draw(FP32, 3, 40, 16), draw(FP32, 3, 40, 16, seed=1, scale=3.0)
    stds = (x.std(dim=(1, 2), keepdim=True) for x in (cond, guided))
    theirs = rescale_noise_cfg(guided, cond, guidance_rescale=0.7)
    assert_bits(theirs, guidance.rescale_per_sample(guided, *stds, 0.7, FP32))


def test_schedule_and_step() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(cached("ltx-2") / "scheduler")
    for steps, tokens in ((4, 24), (15, 1024), (30, 6144)):
        scheduler.set_timesteps(
            sigmas=np.linspace(1.0, 1 / steps, steps), mu=calculate_shift(tokens, 1024, 4096, 0.95, 2.05)
        )
        assert_bits(scheduler.sigmas, schedule.levels(steps, tokens, torch.float64, reciprocal=False))
    x, velocity = edged(FP32, 2, 33, 16), draw(FP32, 2, 33, 16, seed=1)
    for index, t in enumerate(scheduler.timesteps[:3]):
        expected = flow.euler_step(x, velocity, scheduler.sigmas[index], scheduler.sigmas[index + 1], FP32)
        x = scheduler.step(velocity, t, x, return_dict=False)[0]
        assert_bits(x, expected)


def test_weighted_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers.pipelines.ltx2 import pipeline_ltx2

    latent, noise = edged(FP32, 1, 8, 3, 4, 5), draw(FP32, 1, 8, 3, 4, 5, seed=1)
    monkeypatch.setattr(pipeline_ltx2, "randn_tensor", lambda *_, **__: noise)
    theirs = LTX2Pipeline._create_noised_state(latent, 0.909375)
    assert_bits(theirs, flow.noised_weighted(latent, noise, 0.909375))


@pytest.mark.parametrize("dtype", DTYPES)
def test_text_features(dtype: torch.dtype) -> None:
    x = small_integers(dtype, 2, 16, 64, 8)
    mask = torch.ones(2, 16, dtype=torch.bool)
    mask[0, :2] = mask[1, :9] = False
    pads = ~mask[:, :, None]
    theirs = per_token_rms_norm(x).flatten(2).masked_fill(pads, 0.0)
    assert_bits(theirs, text.token_norm(x, mask, dtype, dtype))
    theirs = per_layer_masked_mean_norm(x, mask.sum(-1), x.device).masked_fill(pads, 0.0)
    assert_bits(theirs, text.range_norm(x, mask, dtype))
