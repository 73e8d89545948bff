"""The specification against public functions of the official packages 1.0.0; skipped where they are not installed."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from official_packages import only
from spec_check import BF16, FP32, assert_bits, draw, edged, small_integers

from reference_impl.spec import flow, guidance, layers, res2s, rotary, schedule, text
from reference_impl.spec.rounding import exact, round_to

pytestmark = only("1.0.0")
DTYPES = (FP32, BF16)


def test_rotary() -> None:
    from ltx_core.model.transformer.rope import apply_split_rotary_emb, generate_freq_grid_np

    angle = torch.rand((2, 4, 33, 8), generator=torch.Generator().manual_seed(1)) * 6
    x, cos, sin = edged(BF16, 2, 33, 64), angle.cos().bfloat16(), angle.sin().bfloat16()
    theirs = apply_split_rotary_emb(x, cos, sin)
    assert_bits(theirs, rotary.rotate(x, angle.cos(), angle.sin(), "product-rounded", BF16).flatten(2))
    assert_bits(generate_freq_grid_np(1e4, 3, 4096).float(), rotary.frequency_grid(682, 1e4))


def test_layers() -> None:
    from ltx_core.model.transformer.timestep_embedding import get_timestep_embedding
    from ltx_core.utils import rms_norm

    x, weight = small_integers(BF16, 64, 256), draw(BF16, 256, seed=1)
    assert_bits(rms_norm(x, eps=1e-6), layers.rms_norm(x, 1e-6, BF16))
    assert_bits(rms_norm(x, weight, 1e-6), layers.weighted_rms_norm(x, weight, 1e-6, BF16, twice=False))
    t = torch.tensor([0.0, 1000.0, 999.37, 421.875])
    theirs = get_timestep_embedding(t, 256, flip_sin_to_cos=True, downscale_freq_shift=0)
    assert (theirs.double() - layers.sinusoid(t)).abs().max() < 1.2e-7


def test_text_features() -> None:
    from ltx_core.text_encoders.gemma import feature_extractor as official

    x = small_integers(BF16, 2, 16, 64, 8)
    mask = torch.ones(2, 16, dtype=torch.bool)
    mask[0, :2] = mask[1, :9] = False
    assert_bits(official.norm_and_concat_per_token_rms(x, mask), text.token_norm(x, mask, BF16, BF16))
    theirs = official._norm_and_concat_padded_batch(x, mask.sum(-1), "left").to(BF16)
    assert_bits(theirs, text.range_norm(x, mask, BF16))


def test_conversions_and_the_euler_step() -> None:
    from ltx_core.components.diffusion_steps import EulerDiffusionStep
    from ltx_core.utils import to_denoised, to_velocity

    x, other, sigmas = edged(BF16, 2, 33, 16), edged(BF16, 2, 33, 16, seed=1), torch.tensor([0.909375, 0.725, 0.0])
    tokens = torch.rand(2, 33, 1, generator=torch.Generator().manual_seed(2))
    assert_bits(to_denoised(x, other, tokens), flow.x0_from_velocity(x, other, tokens, BF16))
    assert_bits(to_velocity(x, sigmas[1], other), flow.velocity_from_x0(x, other, sigmas[1], BF16))
    for index in range(2):
        now, later = sigmas[index], sigmas[index + 1]
        velocity = flow.velocity_from_x0(x, other, now, BF16)
        theirs = EulerDiffusionStep().step(x, other, sigmas, index)
        assert_bits(theirs, flow.euler_step(x, velocity, now, later, BF16))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rescale", [0.0, 0.7])
def test_guider(dtype: torch.dtype, rescale: float) -> None:
    from ltx_core.components.guiders import MultiModalGuider, MultiModalGuiderParams

    c, u, p, m = (draw(dtype, 2, 33, 16, seed=seed) for seed in range(4))
    params = MultiModalGuiderParams(cfg_scale=3.0, stg_scale=1.3, modality_scale=2.6, rescale_scale=rescale)
    guided = guidance.combine(c, [(2.0, u), (1.3, p), (1.6, m)], dtype, dtype)
    theirs = MultiModalGuider(params).calculate(c, u, p, m)
    if rescale:
        stored = guided.to(dtype)
        guided = guidance.rescale_whole_tensor(guided, c.std(), stored.std(), rescale, dtype)
    assert_bits(theirs, guided)


@pytest.mark.parametrize("steps", [2, 8, 15, 30, 40])
def test_schedule(steps: int) -> None:
    from ltx_core.components.schedulers import LTX2Scheduler

    assert_bits(LTX2Scheduler().execute(steps=steps), schedule.levels(steps, 4096, FP32, reciprocal=True))


def _state(latent: torch.Tensor, mask: torch.Tensor, clean: torch.Tensor) -> Any:
    from ltx_core.types import LatentState

    positions = torch.zeros(1)
    return LatentState(latent=latent, denoise_mask=mask, positions=positions, clean_latent=clean)


@pytest.mark.parametrize("dtype", DTYPES)
def test_noiser_and_given_tokens(dtype: torch.dtype) -> None:
    from ltx_core.components.noisers import GaussianNoiser
    from ltx_pipelines.utils.helpers import post_process_latent

    latent, mask = draw(dtype, 1, 40, 16), torch.rand(1, 40, 1, generator=torch.Generator().manual_seed(3))
    mask[:, :5], mask[:, 5:9] = 0.0, 1.0
    theirs = GaussianNoiser(torch.Generator().manual_seed(4))(_state(latent, mask, latent), 0.909375).latent
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(4), dtype=dtype)
    assert_bits(theirs, flow.noised_masked(latent, noise, mask, 0.909375, dtype))
    x0 = draw(dtype, 1, 40, 16, seed=5)
    assert_bits(post_process_latent(x0, mask, latent), flow.blend(x0, latent, mask, dtype))


def test_res2s_coefficients_and_noise() -> None:
    from ltx_core.components.diffusion_steps import Res2sDiffusionStep
    from ltx_pipelines.utils.res2s import get_res2s_coefficients

    for now, later in ((1.0, 0.9), (0.725, 0.421875), (0.1, 0.0011), (1.0, 1.0 - 1e-12)):
        c = res2s.coefficients(-math.log(later / now))
        assert get_res2s_coefficients(-math.log(later / now), {}) == (c.a21, c.b1, c.b2)
    x, det, noise = (draw(FP32, 1, 40, 16, seed=seed).double() for seed in range(3))
    for dtype in (FP32, torch.float64):
        for sigmas in ((0.909375, 0.725), (0.1, 0.0011), (0.0011, 0.0)):
            levels = torch.tensor(sigmas, dtype=dtype)
            theirs = Res2sDiffusionStep().step(x, det, levels, 0, noise)
            ours = res2s.sde(x, det, float(levels[0]), float(levels[1]), noise, dtype)
            assert torch.equal(theirs, ours)


@pytest.mark.parametrize("dtype", DTYPES)
def test_two_res2s_steps(dtype: torch.dtype) -> None:
    """The packages' loop over a stub model, with a mask, against ``res2s.step`` and its last evaluation."""
    from ltx_core.components.diffusion_steps import Res2sDiffusionStep
    from ltx_pipelines.utils.samplers import res2s_audio_video_denoising_loop

    shape, sigmas = {"video": (1, 24, 16), "audio": (1, 7, 16)}, (0.9, 0.6, 0.0)
    clean = {stream: draw(dtype, *size, seed=1) for stream, size in shape.items()}
    mask = {stream: torch.ones(1, size[1], 1) for stream, size in shape.items()}
    mask["video"][:, :6], mask["video"][:, 6:9] = 0.0, 0.3
    start = {stream: draw(dtype, *size, seed=2) for stream, size in shape.items()}

    def model(x: torch.Tensor, level: float) -> torch.Tensor:
        return (torch.sin(x.float() * (1.0 + level)) * 0.8).to(dtype)

    def denoise_fn(video_state: Any, audio_state: Any, sigmas: torch.Tensor, step_index: int) -> Any:
        level = float(sigmas[step_index])
        return model(video_state.latent, level), model(audio_state.latent, level)

    theirs = res2s_audio_video_denoising_loop(
        torch.tensor(sigmas),
        _state(start["video"], mask["video"], clean["video"]),
        _state(start["audio"], mask["audio"], clean["audio"]),
        Res2sDiffusionStep(),
        denoise_fn,
        model_dtype=dtype,
        legacy_mode=True,
    )
    draws = {name: torch.Generator().manual_seed(seed) for name, seed in (("step", -1), ("substep", 9999))}
    state = {stream: exact(x) for stream, x in start.items()}

    def noise(name: str, stream: str) -> torch.Tensor:
        return res2s.normalised(torch.randn(shape[stream], generator=draws[name], dtype=torch.float64))

    levels = [float(level) for level in torch.tensor([0.9, 0.6, 0.0011])]
    for now, later in itertools.pairwise(levels):
        after = {}
        for stream in shape:
            denoise = _blended(model, clean[stream], mask[stream], dtype)
            after[stream] = res2s.step(
                state[stream],
                now,
                later,
                denoise,
                substep_noise=noise("substep", stream),
                step_noise=noise("step", stream),
                clean=clean[stream],
                mask=mask[stream],
                dtype=dtype,
            )
        state = after
    for stream, ended in zip(shape, theirs, strict=True):
        expected = _blended(model, clean[stream], mask[stream], dtype)(state[stream], levels[-1])
        assert_bits(ended.latent, round_to(expected, dtype))


def _blended(model: Any, clean: torch.Tensor, mask: torch.Tensor, dtype: torch.dtype) -> res2s.Denoise:
    return lambda x, level: flow.blend(model(x.to(dtype), level), clean, mask, dtype)
