"""The engine against the installed ltx-core and ltx-pipelines under the preset of their version, bit for bit."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import slow_parts
import torch
from engine_reference import (
    ALL_GUIDANCE,
    CPU,
    DTYPES,
    dit_inputs,
    engine_connectors,
    engine_dit,
    tiny_case,
    tiny_request,
)
from official_packages import require

from conformance.case import Guidance
from conformance.generator import Probe
from conformance.handshake import handshake
from conformance.matrix import all_cases
from engine.generator import build as build_engine
from engine.numerics import choices, preset
from engine.sampling import euler, guidance
from engine.sampling.schedule import ScheduleConfig, schedule
from reference_impl.official import generator
from reference_impl.official.load import Modules, load
from reference_impl.tiny import official_file
from reference_impl.tiny.build import MODELS, cached

NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16"}
NAME = f"official-{require('1.0.0', '1.2.0')}"
OFFICIAL = preset(NAME)
# tokens of the first latent frame, of 3 x 5 each, that are given: their timestep is 0
GIVEN = 15


@cache
def modules(model: str, dtype: torch.dtype) -> Modules:
    return load(cached(model), NAMES[dtype], "cpu", 32)


@pytest.mark.parametrize("name", ["torchaudio", "OpenImageIO"])
def test_nobody_takes_a_stand_in_for_the_real_one(name: str) -> None:
    assert name not in sys.modules or sys.modules[name].__file__


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("changes", [{}, ALL_GUIDANCE, {"sigmas": None}], ids=["unguided", "guided", "own-schedule"])
@pytest.mark.parametrize("model", slow_parts.MODELS)
def test_whole_cases_are_equal_bit_for_bit(model: str, changes: dict[str, Any], dtype: str) -> None:
    case = tiny_case(model, dtype, tiny_request(**changes), numerics=NAME)
    mine, theirs = Probe(), Probe()
    engine = build_engine(cached(model), "cpu").generate(case, mine)
    official = generator.build(cached(model), "cpu").generate(case, theirs)
    assert mine.trace.keys() == theirs.trace.keys()
    assert [name for name, tap in mine.trace.items() if tap.sha256 != theirs.trace[name].sha256] == []
    assert handshake(engine.resolved, official.resolved) is None
    assert np.array_equal(engine.frames, official.frames)
    assert np.array_equal(engine.frames_float, official.frames_float)
    assert np.array_equal(engine.audio, official.audio)
    assert engine.audio_rate == official.audio_rate
    assert all(torch.equal(engine.latents[stream], official.latents[stream]) for stream in ("video", "audio"))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "request_of",
    ["one-stage-ti2v/cfg-strength", "two-stage-t2v/all-guidance-adapted", "two-stage-hq-ti2v/all-guidance-strength"],
)
def test_given_frames_and_second_stages_are_equal_bit_for_bit(request_of: str, dtype: str) -> None:
    (case,) = (case for case in all_cases() if case.id == f"ltx-2.3/{request_of}@single+{NAME}-{dtype}")
    mine, theirs = Probe(), Probe()
    engine = build_engine(cached("ltx-2.3"), "cpu").generate(case, mine)
    official = generator.build(cached("ltx-2.3"), "cpu").generate(case, theirs)
    assert mine.trace.keys() == theirs.trace.keys()
    assert [name for name, tap in mine.trace.items() if tap.sha256 != theirs.trace[name].sha256] == []
    assert handshake(engine.resolved, official.resolved) is None
    assert np.array_equal(engine.frames, official.frames)
    assert np.array_equal(engine.audio, official.audio)
    assert all(torch.equal(engine.latents[stream], official.latents[stream]) for stream in ("video", "audio"))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("model", MODELS)
def test_the_diffusers_preset_is_another_function(model: str, dtype: torch.dtype) -> None:
    inputs = _inputs(model, dtype)
    theirs = _forward(modules(model, dtype).transformer.velocity_model, inputs)
    mine = engine_dit(model, dtype)(inputs, OFFICIAL)
    assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))
    if dtype == torch.bfloat16:
        other = engine_dit(model, dtype)(inputs, preset("diffusers"))
        assert not any(torch.equal(a, b) for a, b in zip(other, theirs, strict=True))


def _inputs(model: str, dtype: torch.dtype) -> Any:
    inputs = dit_inputs(model, dtype, text_mask=None)
    times = {
        name: inputs.sigma[:, None].expand(-1, state.shape[1])
        for name, state in (("timestep", inputs.video), ("audio_timestep", inputs.audio))
    }
    rounded = inputs.video_bounds.to(dtype if OFFICIAL.positions_dtype == "model" else torch.float32)
    return replace(inputs, **times, video_bounds=rounded)


@torch.inference_mode()
def _forward(dit: Any, inputs: Any, given: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    from ltx_core.model.transformer import Modality

    level = torch.tensor(0.7317)
    streams = (
        (inputs.video, inputs.video_bounds, inputs.video_text),
        (inputs.audio, inputs.audio_bounds, inputs.audio_text),
    )
    masks = [torch.ones(1, x.shape[1], 1) for x, _, _ in streams]
    masks[0][:, :given] = 0
    modalities = [
        Modality(latent=x, sigma=level, timesteps=mask * level, positions=at, context=text)
        for (x, at, text), mask in zip(streams, masks, strict=True)
    ]
    return dit(*modalities, None)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("model", MODELS)
def test_a_given_frame_tells_whose_noise_level_the_cross_modal_heads_read(model: str, dtype: torch.dtype) -> None:
    inputs = _inputs(model, dtype)
    inputs = replace(inputs, timestep=torch.where(torch.arange(inputs.video.shape[1]) < GIVEN, 0.0, inputs.timestep))
    theirs = _forward(modules(model, dtype).transformer.velocity_model, inputs, GIVEN)
    for value in choices()["av_timestep"]:
        mine = engine_dit(model, dtype)(inputs, replace(OFFICIAL, av_timestep=value))
        same = value == OFFICIAL.av_timestep
        for a, b in zip(mine, theirs, strict=True):
            assert torch.equal(a, b) if same else (a - b).float().norm() / b.float().norm() > 1e-3


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("model", MODELS)
def test_connectors(model: str, dtype: torch.dtype) -> None:
    connectors = engine_connectors(model, dtype)
    width, layers = connectors.config.caption_channels, connectors.config.text_proj_in_factor
    states_BTDL = torch.randn(1, 32, width, layers, generator=torch.Generator().manual_seed(4)).to(dtype)
    for valid in (1, 5, 32):
        mask = (torch.arange(32) >= 32 - valid).long()[None]
        mine = connectors(states_BTDL.flatten(2), mask, OFFICIAL)
        theirs = modules(model, dtype).embeddings.process_hidden_states(states_BTDL.unbind(-1), mask)
        assert torch.equal(mine[0], theirs.video_encoding)
        assert torch.equal(mine[1], theirs.audio_encoding)


def test_schedules() -> None:
    from ltx_core.components.schedulers import LTX2Scheduler

    curve = ScheduleConfig.load(cached("ltx-2") / "scheduler")
    for steps in (2, 3, 4, 7, 8, 15, 30, 40, 50):
        assert torch.equal(schedule(steps, 12, curve, OFFICIAL), LTX2Scheduler().execute(steps=steps))


@pytest.mark.parametrize("dtype", DTYPES)
def test_guider_and_step(dtype: torch.dtype) -> None:
    from ltx_core.components.diffusion_steps import EulerDiffusionStep
    from ltx_core.components.guiders import MultiModalGuider, MultiModalGuiderParams

    x, *branches = torch.randn(5, 1, 9, 128, generator=torch.Generator().manual_seed(2)).to(dtype)
    scales = Guidance(cfg=3.0, stg=1.0, modality=3.0, rescale=0.7)
    params = MultiModalGuiderParams(cfg_scale=3.0, stg_scale=1.0, modality_scale=3.0, rescale_scale=0.7)
    names = ("cond", "uncond", "stg", "modality")
    guided = guidance.combine(dict(zip(names, branches, strict=True)), scales, OFFICIAL, dtype)
    assert torch.equal(guided, MultiModalGuider(params=params).calculate(*branches))
    sigmas = torch.tensor([0.7317, 0.421])
    mine = euler.step(x, euler.to_velocity(x, guided, sigmas[0], dtype), *sigmas, dtype)
    assert torch.equal(mine, EulerDiffusionStep().step(x, guided, sigmas, 0))


@pytest.mark.parametrize("model", MODELS)
def test_the_packages_own_loader_reads_the_tiny_single_file(model: str) -> None:
    from ltx_core.loader import SingleGPUModelBuilder
    from ltx_core.model import transformer, video_vae

    path = str(official_file.cached(model))
    for configurator, names, expected in (
        (
            transformer.LTXModelConfigurator,
            transformer.LTXV_MODEL_COMFY_RENAMING_MAP,
            modules(model, torch.bfloat16).transformer.velocity_model,
        ),
        (
            video_vae.VideoDecoderConfigurator,
            video_vae.VAE_DECODER_COMFY_KEYS_FILTER,
            modules(model, torch.bfloat16).video_decoder,
        ),
    ):
        builder = SingleGPUModelBuilder(model_class_configurator=configurator, model_path=path, model_sd_ops=names)
        built = builder.build(device=CPU, dtype=torch.bfloat16)
        wanted = expected.state_dict()
        assert built.state_dict().keys() == wanted.keys()
        assert all(torch.equal(tensor, wanted[key]) for key, tensor in built.state_dict().items())
    state = builder.load_sd([path], builder.registry, CPU, video_vae.VAE_ENCODER_COMFY_KEYS_FILTER).sd
    encoder = load(cached(model), "bf16", "cpu", 32, image=True).video_encoder.state_dict()
    assert encoder.keys() == state.keys()
    assert all(torch.equal(tensor, state[key]) for key, tensor in encoder.items())
