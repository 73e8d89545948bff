"""The engine's DiT against diffusers' with the same weights: bitwise, in fp32 and bf16."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from engine_reference import DIFFUSERS, DTYPES, MODELS, diffusers_dit, diffusers_forward, dit_inputs, engine_dit

from conformance.generator import BLOCK_TAPS

SCENES: dict[str, dict[str, Any]] = {
    "odd token counts": {},
    "one token": {"shape_FHW": (1, 1, 1), "audio_tokens": 1},
    "batch 2, STG": {"batch": 2, "stg_blocks": (1,)},
    "isolated": {"isolated": True},
    "192 tokens, 50 fps": {"shape_FHW": (4, 6, 8), "audio_tokens": 20, "frame_rate": 50.0},
}


@pytest.fixture(params=(1, 2), ids=lambda n: f"{n} threads")
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("scene", SCENES)
def test_forward_is_bitwise_equal(model: str, dtype: torch.dtype, scene: str, threads: int) -> None:
    inputs = dit_inputs(model, dtype, **SCENES[scene])
    expected = diffusers_forward(diffusers_dit(model, dtype), inputs)
    actual = engine_dit(model, dtype)(inputs, DIFFUSERS)
    for ours, theirs in zip(actual, expected, strict=True):
        assert ours.dtype == dtype
        assert theirs.float().std() > 0.5
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("model", MODELS)
def test_timesteps_per_token(model: str, own: bool) -> None:
    """Different levels per token and modality reach the same heads, with either rule for the cross-modal ones."""
    inputs = dit_inputs(model, torch.float32, batch=2)
    video = torch.linspace(0, 1, inputs.video.shape[1]) * inputs.timestep[:, None]
    audio = torch.linspace(1, 0.2, inputs.audio.shape[1]) * inputs.timestep[:, None]
    inputs = replace(inputs, timestep=video, audio_timestep=audio)
    expected = diffusers_forward(diffusers_dit(model, torch.float32), inputs, use_cross_timestep=not own)
    actual = engine_dit(model, torch.float32)(inputs, replace(DIFFUSERS, av_timestep="own" if own else "cross"))
    for ours, theirs in zip(actual, expected, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(("value", "scale", "gate"), [("cross", 0, 0), ("own", 1, 1), ("own-cross-gate", 1, 0)])
def test_what_the_cross_modal_heads_read(value: Any, scale: int, gate: int) -> None:
    """0: the noise level of the whole entry; 1: the own timestep of every token."""
    inputs = dit_inputs("ltx-2.3", torch.float32)
    inputs = replace(
        inputs,
        timestep=inputs.sigma[:, None] * torch.linspace(0, 1, inputs.video.shape[1]),
        audio_timestep=inputs.sigma[:, None] * torch.linspace(1, 0.2, inputs.audio.shape[1]),
    )
    read: dict[str, torch.Tensor] = {}
    dit = engine_dit("ltx-2.3", torch.float32)
    levels = ((inputs.sigma, inputs.sigma), (inputs.timestep, inputs.audio_timestep))
    expected = {
        "av_cross_attn_video_scale_shift": levels[scale][0],
        "av_cross_attn_audio_scale_shift": levels[scale][1],
        "av_cross_attn_video_a2v_gate": levels[gate][0],
        "av_cross_attn_audio_v2a_gate": levels[gate][1],
    }

    def watch(name: str) -> Any:
        return dit.get_submodule(name).register_forward_pre_hook(lambda _, args: read.update({name: args[0]}))

    hooks = [watch(name) for name in expected]
    dit(inputs, replace(DIFFUSERS, av_timestep=value))
    for hook in hooks:
        hook.remove()
    assert read.keys() == expected.keys()
    assert all(torch.equal(read[name], level) for name, level in expected.items())


@pytest.mark.parametrize("model", MODELS)
def test_constant_timesteps_per_token_are_the_batch_timestep(model: str) -> None:
    inputs = dit_inputs(model, torch.float32)
    per_token = replace(
        inputs,
        timestep=inputs.timestep[:, None].expand(-1, inputs.video.shape[1]),
        audio_timestep=inputs.timestep[:, None].expand(-1, inputs.audio.shape[1]),
    )
    dit = engine_dit(model, torch.float32)
    for ours, theirs in zip(dit(per_token, DIFFUSERS), dit(inputs, DIFFUSERS), strict=True):
        assert (ours - theirs).norm() / theirs.norm() < 1e-6


def test_text_mask_hides_text() -> None:
    inputs = dit_inputs("ltx-2.3", torch.float32)
    assert inputs.text_mask is not None
    mask = inputs.text_mask.clone()
    mask[:, :4] = 0
    inputs = replace(inputs, text_mask=mask)
    actual = engine_dit("ltx-2.3", torch.float32)(inputs, DIFFUSERS)
    expected = diffusers_forward(diffusers_dit("ltx-2.3", torch.float32), inputs)
    assert torch.equal(actual[0], expected[0])


@pytest.mark.parametrize("model", MODELS)
def test_blocks_have_the_modules_that_taps_name(model: str) -> None:
    ours, theirs = engine_dit(model, torch.float32), diffusers_dit(model, torch.float32)
    for name in BLOCK_TAPS:
        ours.transformer_blocks[0].get_submodule(name)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
