"""Numerics: refused outside its values; and where a field moves no number on a CPU, the call that it changes.

What fields do to numbers: ``test_fields.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from engine_reference import DIFFUSERS, engine_connectors, engine_dit
from torch.nn import functional

from conformance.case import Guidance
from conformance.defects.fields import FIELDS, NEITHER
from conformance.errors import InputError
from conformance.generator import Probe
from engine.numerics import PRESETS, Numerics, choices, preset
from engine.pipelines.ltx2_inputs import STREAMS, Latents, TextStates, contexts, pack_noise
from engine.pipelines.ltx2_stage import Plan, sample

BF16 = torch.bfloat16
SIZES = Latents(video=(1, 128, 2, 2, 3), audio=(1, 8, 7, 16))


def _randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


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


def _forwards(monkeypatch: pytest.MonkeyPatch, numerics: Numerics) -> list[Any]:
    """Shapes of the timesteps, masks and batches of attention, and autocast, in two steps."""
    seen: list[Any] = []
    dit = engine_dit("ltx-2.3", BF16)
    real = functional.scaled_dot_product_attention

    def spy(
        query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attn_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        seen.append((attn_mask is not None, query.shape[0], torch.is_autocast_enabled("cpu")))
        return real(query, key, value, attn_mask=attn_mask)

    hook = dit.time_embed.register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape)))
    with monkeypatch.context() as patch:
        patch.setattr(functional, "scaled_dot_product_attention", spy)
        _sampled(numerics)
    hook.remove()
    return seen


def _fused_norms(monkeypatch: pytest.MonkeyPatch, numerics: Numerics) -> list[Any]:
    """Widths that torch's norm without a weight is called for."""
    seen, real = [], functional.rms_norm

    def spy(x: torch.Tensor, shape: Any, weight: torch.Tensor | None = None, eps: float | None = None) -> torch.Tensor:
        if weight is None:
            seen.append(x.shape[-1])
        return real(x, shape, weight, eps)

    with monkeypatch.context() as patch:
        patch.setattr(functional, "rms_norm", spy)
        _sampled(numerics)
    return seen


def _divisors(monkeypatch: pytest.MonkeyPatch, numerics: Numerics) -> list[Any]:
    """What Euler steps divide by."""
    seen, real = [], torch.Tensor.__truediv__

    def spy(x: torch.Tensor, divisor: Any) -> torch.Tensor:
        seen.append(type(divisor).__name__)
        return real(x, divisor)

    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "__truediv__", spy)
        _sampled(numerics)
    return seen


def _connector_calls(monkeypatch: pytest.MonkeyPatch, numerics: Numerics) -> list[Any]:
    """Batches of the video connector, and whether its first attention has a mask."""
    connectors, seen = engine_connectors("ltx-2.3", torch.float32), []
    width = connectors.config.caption_channels * connectors.config.text_proj_in_factor
    first = connectors.video_connector.transformer_blocks[0]
    hook = first.register_forward_pre_hook(lambda _, args: seen.append((args[0].shape[0], args[1] is not None)))
    length = connectors.config.video_connector_num_learnable_registers
    mask = torch.ones(1, length, dtype=torch.int64)
    text = {prompt: TextStates(embeds=_randn(1, length, width), mask=mask) for prompt in ("pos", "neg")}
    contexts(connectors, text, numerics, Probe(depth="step"))
    hook.remove()
    return seen


CALLS: dict[str, Callable[[pytest.MonkeyPatch, Numerics], list[Any]]] = {
    "block_norm": _fused_norms,
    "velocity_divisor": _divisors,
    "timestep_shape": _forwards,
    "text_mask": _forwards,
    "cfg_batch": _forwards,
    "autocast": _forwards,
    "connector_mask": _connector_calls,
    "connector_batch": _connector_calls,
}


def _flipped(name: str) -> Numerics:
    return _changed(name, next(value for value in choices()[name] if value != getattr(DIFFUSERS, name)))


def _changed(name: str, value: Any) -> Numerics:
    return replace(DIFFUSERS, **{name: value})


@pytest.mark.parametrize("name", CALLS)
def test_flipping_one_field_changes_a_call(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = (CALLS[name](monkeypatch, numerics) for numerics in (DIFFUSERS, _flipped(name)))
    assert before != after


def test_a_field_that_moves_no_number_changes_a_call() -> None:
    assert {name for name, field in FIELDS.items() if field.seen == NEITHER} <= CALLS.keys()


@pytest.mark.parametrize("name", ["timestep_shape", "text_mask", "cfg_batch", "token_memory"])
def test_such_calls_mean_the_same(name: str) -> None:
    before = _sampled(DIFFUSERS, torch.float32).tensors["latents/final/video"]
    after = _sampled(_flipped(name), torch.float32).tensors["latents/final/video"]
    assert (before - after).norm() / before.norm() < 2e-6


def test_prompts_keep_their_contexts_in_a_pair() -> None:
    """Each prompt's part of the batch comes back under its name."""
    connectors = engine_connectors("ltx-2.3", torch.float32)
    width = connectors.config.caption_channels * connectors.config.text_proj_in_factor
    length = connectors.config.video_connector_num_learnable_registers
    text = {}
    for seed, prompt in enumerate(("pos", "neg")):
        mask = torch.ones(1, length, dtype=torch.int64)
        mask[:, : 3 * seed] = 0
        text[prompt] = TextStates(embeds=_randn(1, length, width, seed=seed), mask=mask)
    separate, pair = (
        contexts(connectors, text, _changed("connector_batch", choice), Probe(depth="step"))
        for choice in ("separate", "pair")
    )
    for prompt in text:
        for stream in STREAMS:
            error = (pair[prompt][stream] - separate[prompt][stream]).norm() / separate[prompt][stream].norm()
            assert error < 2e-6


def test_every_field_is_documented() -> None:
    assert {field.name for field in fields(Numerics)} == choices().keys()
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
