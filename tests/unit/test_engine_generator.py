"""The engine as a Generator: bitwise against LTX2Pipeline, its taps, its echo, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slow_parts
import torch
from diffusers import LTX2Pipeline
from engine_reference import ALL_GUIDANCE, DTYPES, MODELS, tiny_case, tiny_request

from conformance.case import Case, Layout
from conformance.errors import InputError, UnsupportedCase
from conformance.generator import BLOCK_TAPS, HANDSHAKE, Probe, Sample
from engine.generator import Engine, build
from reference_impl.diffusers_load import realigned
from reference_impl.tiny.build import cached

NAMES = dict(zip(("fp32", "bf16"), DTYPES, strict=True))
SCALES = {"cfg": "guidance_scale", "stg": "stg_scale", "modality": "modality_scale", "rescale": "guidance_rescale"}


@cache
def engine(model: str) -> Engine:
    return build(cached(model), "cpu")


def run(case: Case, depth: str = "step") -> Sample:
    return engine(case.model).generate(case, Probe(depth=depth))


def pipeline_output(case: Case) -> tuple[np.ndarray, torch.Tensor, torch.Tensor]:
    """Frames, waveform and sigmas of diffusers' pipeline, which draws the same noise from the same seed."""
    pipe: Any = LTX2Pipeline.from_pretrained(cached(case.model), dtype=NAMES[case.dtype])
    pipe.set_progress_bar_config(disable=True)
    for name in ("vae", "audio_vae", "text_encoder", "connectors", "transformer", "vocoder"):
        realigned(getattr(pipe, name))
    request = case.request
    sides = (("", request.video_guidance), ("audio_", request.audio_guidance))
    frames, waveform = pipe(
        prompt=list(request.prompts),
        negative_prompt=list(request.negative_prompts),
        height=request.height,
        width=request.width,
        num_frames=request.num_frames,
        frame_rate=request.frame_rate,
        num_inference_steps=request.steps,
        spatio_temporal_guidance_blocks=list(request.stg_blocks),
        generator=torch.Generator().manual_seed(request.seed),
        max_sequence_length=request.text_tokens,
        output_type="np",
        return_dict=False,
        **{prefix + name: getattr(side, field) for prefix, side in sides for field, name in SCALES.items()},
    )
    return frames, waveform, pipe.scheduler.sigmas


@pytest.mark.parametrize("guided", [False, True], ids=["unguided", "all guidance, batch 2, 25 fps"])
@pytest.mark.parametrize("dtype", NAMES)
@pytest.mark.parametrize("model", slow_parts.MODELS)
def test_bitwise_equal_to_the_pipeline(model: str, dtype: str, guided: bool) -> None:
    changes: dict[str, Any] = {"sigmas": None}
    if guided:
        two = {"prompts": ("a cat runs", "  dogs sing a longer song "), "negative_prompts": ("bad", "")}
        changes |= ALL_GUIDANCE | two | {"frame_rate": 25.0}
    case = tiny_case(model, dtype, tiny_request(**changes))
    sample = run(case)
    frames, waveform, sigmas = pipeline_output(case)
    assert sample.frames_float is not None
    assert sample.audio is not None
    assert float(frames.std()) > 0.05
    assert np.array_equal(sample.frames_float, frames)
    assert np.array_equal(sample.frames, np.rint(frames * 255))
    assert np.array_equal(sample.audio, waveform.float().numpy())
    assert sample.resolved["sigmas"] == sigmas.tolist()


@pytest.mark.parametrize("model", MODELS)
def test_taps_and_echo(model: str) -> None:
    request = tiny_request(**ALL_GUIDANCE)
    sample = run(tiny_case(model, "fp32", request), depth="block")
    branches = ("uncond", "cond", "stg", "modality")
    for step in ("step.000", "step.001"):
        for branch in branches:
            at = f"{step}/{branch}/block.02"
            skipped = {"a2v/out", "v2a/out"} if branch == "modality" else set()
            expected = {f"{at}/{name}" for name in (*BLOCK_TAPS.values(), "video", "audio") if name not in skipped}
            assert {name for name in sample.trace if name.startswith(f"{at}/")} == expected
        assert f"{step}/stg/block.01/attn1/q_norm" not in sample.trace
        assert f"{step}/stg/block.01/attn1/out" in sample.trace
    for name in ("text/neg/mask", "connector/pos/audio", "sigmas", "positions/video", "latents/decode/video"):
        assert name in sample.trace
    assert all(tap.finite for tap in sample.trace.values())
    assert sample.resolved.keys() >= set(HANDSHAKE)
    assert sample.resolved["sigmas"] == [1.0, float(np.float32(0.4)), 0.0]
    assert sample.resolved["video_tokens"] == sample.latents["video"].shape[1] == 2 * 2 * 3
    assert sample.resolved["noise"]["video"] == sample.trace["noise/video"].sha256
    assert sample.resolved["embeds"].keys() == {"pos", "neg"}
    assert sample.shared == ()
    assert sample.frames.shape == (1, 9, 64, 96, 3)
    hooks = [module._forward_hooks for module in engine(model)._loader.common("fp32").transformer.modules()]
    assert not any(hooks)


def test_negative_prompts_are_encoded_only_for_cfg() -> None:
    sample = run(tiny_case("ltx-2", "fp32", tiny_request()))
    assert sample.resolved["embeds"].keys() == {"pos"}
    assert not any(name.startswith(("text/neg", "connector/neg")) or "block." in name for name in sample.trace)


def test_hooks_go_when_a_forward_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    dit = engine("ltx-2")._loader.common("fp32").transformer
    monkeypatch.setattr(dit.transformer_blocks[2].ff, "forward", lambda x: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(tiny_case("ltx-2", "fp32", tiny_request()), depth="block")
    assert not any(module._forward_hooks for module in dit.modules())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layout": Layout.parse("tp2")}, "'layout' is 'tp2'"),
        ({"pipeline": "retake"}, "'pipeline' is 'retake'"),
        ({"model": "other"}, "'model' is 'other'"),
    ],
)
def test_unsupported_cases(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedCase, match=message):
        engine("ltx-2").generate(replace(tiny_case("ltx-2", "fp32", tiny_request()), **changes), Probe())


def test_requests_that_do_not_fit_the_checkpoint() -> None:
    with pytest.raises(InputError, match=r"'stg_blocks' is \(3,\); expected block indices below 3"):
        run(tiny_case("ltx-2", "fp32", tiny_request(**(ALL_GUIDANCE | {"stg_blocks": (3,)}))))
    with pytest.raises(InputError, match=r"'transformer' is 'ltx-2'; expected 'ltx-2.3'"):
        engine("ltx-2").generate(tiny_case("ltx-2.3", "fp32", tiny_request()), Probe())
    with pytest.raises(InputError, match="'preset' is 'sglang'"):
        run(tiny_case("ltx-2", "fp32", tiny_request(), numerics="sglang"))
    with pytest.raises(InputError, match="'text_tokens' is 33"):
        run(tiny_case("ltx-2", "fp32", tiny_request(text_tokens=33)))


def test_build_refuses(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        build(tmp_path / "nothing", "cpu")
    with pytest.raises(InputError, match="'device' is 'abacus'"):
        build(tmp_path, "abacus")
    with pytest.raises(InputError, match=r"transformer/config.json: cannot be read"):
        build(tmp_path, "cpu").generate(tiny_case("ltx-2", "fp32", tiny_request()), Probe())
