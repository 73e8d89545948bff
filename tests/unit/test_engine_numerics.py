"""Every field of Numerics: refused outside its values, and visible in a result when it alone is flipped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from engine_reference import CPU, DIFFUSERS, dit_inputs, engine_connectors, engine_dit
from torch.nn import functional

from conformance.case import Guidance
from conformance.errors import InputError
from conformance.generator import Probe
from engine import components
from engine.frames import to_bytes
from engine.layers.rope import frequency_grid, midpoints, sequence_rotary
from engine.models.ltx2 import positions
from engine.models.ltx2.audio_vae import model as audio_vae
from engine.models.ltx2.video_vae import model as video_vae
from engine.models.ltx2.vocoder import model as vocoder
from engine.numerics import PRESETS, Numerics, choices, preset
from engine.pipelines.ltx2_inputs import STREAMS, Latents, pack_noise
from engine.pipelines.ltx2_stage import Plan, sample
from engine.sampling import guidance
from engine.sampling.schedule import ScheduleConfig, schedule
from reference_impl.tiny.build import cached

BF16 = torch.bfloat16
SIZES = Latents(video=(1, 128, 2, 2, 3), audio=(1, 8, 7, 16))


def _randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _rotated(numerics: Numerics) -> torch.Tensor:
    tables = sequence_rotary(16, 4096, dim=64, heads=4, theta=1e4, numerics=numerics, device=CPU)
    return tables.apply(_randn(1, 16, 64).to(BF16))


def _bounds(numerics: Numerics) -> torch.Tensor:
    config = engine_dit("ltx-2.3", BF16).config
    bounds = positions.video_bounds((9, 2, 2), 24.0, 1, config, CPU)
    return midpoints(positions.rounded(bounds, BF16, numerics)).float()


def _connector_masked(numerics: Numerics) -> torch.Tensor:
    """Whether the first attention of a connector is given a mask."""
    connectors, seen = engine_connectors("ltx-2.3", torch.float32), []
    width = connectors.config.caption_channels * connectors.config.text_proj_in_factor
    first = connectors.video_connector.transformer_blocks[0]
    hook = first.register_forward_pre_hook(lambda _, args: seen.append(args[1] is not None))
    length = connectors.config.video_connector_num_learnable_registers
    connectors(_randn(1, length, width), torch.ones(1, length, dtype=torch.int64), numerics)
    hook.remove()
    return torch.tensor(seen)


def _own_timesteps(numerics: Numerics) -> torch.Tensor:
    inputs = dit_inputs("ltx-2.3", torch.float32)
    inputs = replace(inputs, timestep=inputs.timestep * 0.5)
    return engine_dit("ltx-2.3", torch.float32)(inputs, numerics)[1]


def _sampled(numerics: Numerics, dtype: torch.dtype = BF16) -> Probe:
    """Two guided steps of the tiny DiT on random text."""
    dit, probe = engine_dit("ltx-2.3", dtype), Probe(depth="step")
    scales = Guidance(cfg=3.0, stg=0.0, modality=1.0, rescale=0.0)
    plan = Plan(scales=dict.fromkeys(STREAMS, scales), stg_blocks=(), skip_v2a=False, frame_rate=24.0, sampler="euler")
    widths = {"video": dit.config.width, "audio": dit.config.audio_width}
    text = {
        prompt: {stream: _randn(1, 16, width, seed=seed).to(dtype) for stream, width in widths.items()}
        for seed, prompt in enumerate(("pos", "neg"))
    }
    noise = pack_noise(_randn(*SIZES.video), _randn(*SIZES.audio, seed=1), numerics, probe)
    levels = torch.tensor([1.0, 0.4, 0.0])
    state_dtype = dtype if numerics.latent_dtype == "model" else torch.float32
    state = {stream: noise[stream].to(state_dtype) for stream in STREAMS}
    sample(dit, plan, numerics, text=text, state=state, sigmas=levels, latents=SIZES, probe=probe)
    return probe


def _first_input(monkeypatch: pytest.MonkeyPatch, numerics: Numerics) -> torch.Tensor:
    """Shapes of what the first forward and the text attention of its first block are given."""
    seen: list[torch.Tensor] = []
    dit = engine_dit("ltx-2.3", BF16)
    real = functional.scaled_dot_product_attention

    def spy(
        query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attn_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        seen.append(torch.tensor([attn_mask is not None, query.shape[0]]))
        return real(query, key, value, attn_mask=attn_mask)

    hook = dit.time_embed.register_forward_pre_hook(lambda _, args: seen.append(torch.tensor(args[0].shape)))
    with monkeypatch.context() as patch:
        patch.setattr(functional, "scaled_dot_product_attention", spy)
        _sampled(numerics)
    hook.remove()
    return torch.cat(seen)


def _guided(numerics: Numerics) -> torch.Tensor:
    names = ("cond", "uncond", "stg")
    x0 = {name: _randn(2, 9, 16, seed=seed) * (seed + 1) for seed, name in enumerate(names)}
    x0["cond"][1] *= 5
    scales = Guidance(cfg=3.0, stg=1.0, modality=1.0, rescale=0.7)
    return guidance.combine(x0, scales, numerics, BF16)


def _levels(numerics: Numerics, tokens: int = 24) -> torch.Tensor:
    return schedule(7, tokens, ScheduleConfig.load(cached("ltx-2") / "scheduler"), numerics)


def _strides(numerics: Numerics) -> torch.Tensor:
    return torch.tensor(positions.pack_video(_randn(*SIZES.video), numerics).stride())


def _waveform(numerics: Numerics) -> torch.Tensor:
    model = vocoder.load(cached("ltx-2.3") / "vocoder", BF16, CPU)
    return vocoder.waveform(model, _randn(1, 2, 3, 64).to(BF16), numerics).float()


def _resampled(numerics: Numerics) -> torch.Tensor:
    model = vocoder.load(cached("ltx-2.3") / "vocoder", BF16, CPU)
    model.bwe_generator.conv_out.weight.zero_()  # leaves the resampled first waveform alone
    return vocoder.waveform(model, _randn(1, 2, 3, 64).to(BF16), numerics).float()


def _denormalised(numerics: Numerics) -> torch.Tensor:
    folder = cached("ltx-2.3")
    parts: Any = SimpleNamespace(
        vae=video_vae.load(folder / "vae", BF16, CPU), audio_vae=audio_vae.load(folder / "audio_vae", BF16, CPU)
    )
    tokens = (_randn(1, 12, 128).to(BF16).float(), _randn(1, 7, 128).to(BF16).float())
    return components.decoder_inputs(parts, *tokens, SIZES, numerics)[1].float()


def _bytes(numerics: Numerics) -> torch.Tensor:
    return torch.from_numpy(to_bytes(_randn(4, 4).sigmoid().numpy(), numerics))


OPERATIONS: dict[str, Callable[[Numerics], torch.Tensor]] = {
    "rope_grid_dtype": lambda numerics: frequency_grid(682, 1e4, numerics, CPU),
    "rope_rounding": _rotated,
    "positions_dtype": _bounds,
    "connector_mask": _connector_masked,
    "attention": lambda numerics: _sampled(numerics).tensors["latents/final/video"],
    "token_memory": _strides,
    "latent_dtype": lambda numerics: _sampled(numerics).tensors["latents/final/video"],
    "x0_dtype": lambda numerics: _sampled(numerics).tensors["latents/final/video"],
    "velocity_dtype": lambda numerics: _sampled(numerics).tensors["latents/final/video"],
    "guider_dtype": _guided,
    "av_timestep": _own_timesteps,
    "rescale": _guided,
    "audio_denormal_dtype": _denormalised,
    "frame_bytes": _bytes,
    "schedule_tokens": _levels,
    "schedule_grid": _levels,
    "schedule_shift": lambda numerics: _levels(numerics, 4096),
    "vocoder_dtype": _waveform,
    "resampler_dtype": _resampled,
}
# no number has to change: these choose shapes and masks of calls
CALLS = {"timestep_shape", "text_mask", "cfg_batch"}
# no operation reads them yet
PENDING = {
    *("connector_batch", "feature_rms_dtype", "qk_norm", "stg", "autocast", "given_tokens", "image_fit"),
    *("image_normal_dtype", "noiser", "second_given_frame", "vocoder_clamp", "lora_delta_dtype"),
    *("upsample_dtype", "audio_handoff", "audio_stage"),
    *("sde_noise_dtype", "sde_levels_dtype", "res2s_coefficients", "midpoint_dtype"),
}


def _flipped(name: str) -> Numerics:
    """The preset with another value of one field: of ``attention`` the first other, which runs everywhere."""
    return _changed(name, next(value for value in choices()[name] if value != getattr(DIFFUSERS, name)))


def _changed(name: str, value: Any) -> Numerics:
    return replace(DIFFUSERS, **{name: value})


@pytest.mark.parametrize("name", OPERATIONS)
def test_flipping_one_field_changes_a_result(name: str) -> None:
    before, after = OPERATIONS[name](DIFFUSERS), OPERATIONS[name](_flipped(name))
    assert before.shape == after.shape
    assert not torch.equal(before, after)
    assert torch.equal(before, OPERATIONS[name](DIFFUSERS))


@pytest.mark.parametrize("name", sorted(CALLS))
def test_flipping_one_field_changes_a_call(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = _first_input(monkeypatch, DIFFUSERS), _first_input(monkeypatch, _flipped(name))
    assert before.tolist() != after.tolist()


@pytest.mark.parametrize("name", sorted(CALLS | {"token_memory"}))
def test_such_calls_mean_the_same(name: str) -> None:
    before = _sampled(DIFFUSERS, torch.float32).tensors["latents/final/video"]
    after = _sampled(_flipped(name), torch.float32).tensors["latents/final/video"]
    assert (before - after).norm() / before.norm() < 2e-6


def test_every_field_is_covered() -> None:
    assert OPERATIONS.keys() | CALLS | PENDING == {field.name for field in fields(Numerics)} == choices().keys()
    for name in choices():
        assert f"\n    {name}: " in (Numerics.__doc__ or "")


@pytest.mark.parametrize("name", choices())
def test_values_that_are_not_implemented(name: str) -> None:
    with pytest.raises(InputError, match=f"numerics: '{name}' is 'other'; expected one of"):
        _changed(name, "other")


def test_presets() -> None:
    assert preset("diffusers") == DIFFUSERS
    with pytest.raises(
        InputError, match=r"'preset' is 'official'; expected one of \['diffusers', 'official-1.0.0', 'official-1.2.0'\]"
    ):
        preset("official")
    assert all(isinstance(make(), Numerics) for make in PRESETS.values())
