"""Two stages through diffusers: against the plain pipelines, the taps between them, the LoRA and what is refused."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import numpy as np
import pytest
import slow_parts
import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    LTX2ImageToVideoPipeline,
    LTX2LatentUpsamplePipeline,
    LTX2Pipeline,
)
from diffusers.pipelines.ltx2 import pipeline_ltx2, pipeline_ltx2_image2video
from diffusers.pipelines.ltx2.latent_upsampler import LTX2LatentUpsamplerModel
from PIL import Image
from reference_cases import FULL, GUIDED, REQUEST, generator
from safetensors.torch import load_file
from two_stage_cases import SHAPES, SIGMAS, STREAMS, lora, sample, wanted

from conformance import checkpoint
from conformance.generator import HANDSHAKE, Probe, position_digests, tensor_digest
from conformance.inputs import draw_noise, draw_picture, noise_generator
from reference_impl import diffusers_stages
from reference_impl.diffusers_load import DTYPES
from reference_impl.injected import InjectedNoise
from reference_impl.tiny.build import MODELS, cached


def plain(model: str, dtype: str, image: bool, patch: pytest.MonkeyPatch) -> Any:
    """The chain as diffusers' documentation has it, LoRA merged, on its own pipelines, draws replaced by name."""
    noise = noise_generator(REQUEST["seed"])
    draws = [tensor for shapes in SHAPES.values() for tensor in draw_noise(noise, *shapes)]

    def next_draw(shape: tuple[int, ...], **options: Any) -> torch.Tensor:
        drawn = draws.pop(0)
        if len(shape) == 3:  # packed before noise is added
            drawn = drawn.flatten(2).transpose(1, 2) if drawn.ndim == 5 else drawn.transpose(1, 2).flatten(2)
        assert drawn.shape == shape
        return drawn.contiguous().to(options["dtype"])

    cls: Any = LTX2ImageToVideoPipeline if image else LTX2Pipeline
    for module in (pipeline_ltx2, pipeline_ltx2_image2video):
        patch.setattr(module, "randn_tensor", next_draw)
    folder = cached(model)
    options: dict[str, Any] = {"dtype": DTYPES[dtype], "local_files_only": True}

    def aligned(module: Any) -> Any:
        for tensor in (*module.parameters(), *module.buffers()):
            tensor.data = tensor.data.clone()  # GEMMs on a CPU depend on alignment
        return module

    def fused(strength: float) -> Any:
        pipeline = cls.from_pretrained(folder, **options)
        pipeline.set_progress_bar_config(disable=True)
        for component in pipeline.components.values():
            if isinstance(component, torch.nn.Module):
                aligned(component)
        pipeline.load_lora_weights({key: value.clone() for key, value in load_file(lora(model)).items()})
        pipeline.fuse_lora(lora_scale=strength)
        pipeline.scheduler = FlowMatchEulerDiscreteScheduler.from_config(
            pipeline.scheduler.config, use_dynamic_shifting=False, shift_terminal=None
        )
        return pipeline

    common: dict[str, Any] = {
        "prompt": list(REQUEST["prompts"]),
        "negative_prompt": list(REQUEST["negative_prompts"]),
        "num_frames": 9,
        "frame_rate": 24.0,
        "max_sequence_length": 32,
        "return_dict": False,
    }
    if image:
        common |= {"image": Image.fromarray(draw_picture("blocks", 70, 81)), "image_crf": 33}
    on = {"guidance_scale": FULL.cfg, "stg_scale": FULL.stg, "modality_scale": FULL.modality}
    on |= {"guidance_rescale": FULL.rescale}
    off = {"guidance_scale": 1.0, "stg_scale": 0.0, "modality_scale": 1.0, "guidance_rescale": 0.0}
    both = [{**scales, **{f"audio_{name}": scale for name, scale in scales.items()}} for scales in (on, off)]
    video, audio = fused(0.25)(
        **common,
        **both[0],
        height=64,
        width=96,
        num_inference_steps=2,
        sigmas=list(REQUEST["sigmas"]),
        spatio_temporal_guidance_blocks=[1],
        output_type="latent",
    )
    last = fused(1.0)
    upsampler = aligned(LTX2LatentUpsamplerModel.from_pretrained(folder, subfolder="latent_upsampler", **options))
    doubled = LTX2LatentUpsamplePipeline(vae=last.vae, latent_upsampler=upsampler)(
        latents=video, height=64, width=96, num_frames=9, output_type="latent", return_dict=False
    )[0]
    result = last(
        **common,
        **both[1],
        height=128,
        width=192,
        num_inference_steps=len(SIGMAS),
        sigmas=list(SIGMAS),
        noise_scale=SIGMAS[0],
        latents=doubled,
        audio_latents=audio,
        output_type="np",
    )
    assert not draws
    return result


@pytest.mark.parametrize("image", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("model", slow_parts.MODELS)
def test_equals_the_plain_pipelines(model: str, dtype: str, image: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    made = sample(model, dtype, image=image, **GUIDED)
    with monkeypatch.context() as patch:
        frames, audio = plain(model, dtype, image, patch)
    assert made.audio is not None
    assert np.array_equal(made.frames_float, frames)
    assert np.array_equal(made.audio, audio.float().numpy())


def test_every_argument_of_the_pipelines_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    for module, cls in (
        (pipeline_ltx2, LTX2Pipeline),
        (pipeline_ltx2_image2video, LTX2ImageToVideoPipeline),
        (diffusers_stages, LTX2LatentUpsamplePipeline),
    ):
        parameters = set(inspect.signature(cls.__call__).parameters) - {"self"}

        def checked(self: Any, _inner: Any = cls.__call__, _expected: Any = parameters, **given: Any) -> Any:
            seen.append(type(self).__mro__)
            assert set(given) == _expected
            return _inner(self, **given)

        assert getattr(module, cls.__name__) is cls
        monkeypatch.setattr(cls, "__call__", checked)
    for image in (False, True):
        generator("ltx-2.3").generate(wanted(image=image, first=0.0, second=0.0), Probe(depth="step"))
    for cls, calls in ((LTX2Pipeline, 2), (LTX2ImageToVideoPipeline, 2), (LTX2LatentUpsamplePipeline, 2)):
        assert sum(cls in mro for mro in seen) == calls


@pytest.mark.parametrize("image", [False, True])
def test_taps_are_complete_and_in_order(image: bool) -> None:
    names = list(sample(image=image, **GUIDED).trace)
    branches = {"stage.1": ("uncond", "cond", "stg", "modality"), "stage.2": ("cond",)}
    expected = {"upsample/input", "upsample/output", "vae/frames", "audio/waveform"}
    expected |= {f"{name}/{stream}" for name in ("stage.2/start", "latents/decode") for stream in STREAMS}
    for sign in ("pos", "neg"):
        expected |= {f"text/{sign}/{part}" for part in ("embeds", "mask")}
        expected |= {f"connector/{sign}/{stream}" for stream in STREAMS}
    expected |= {f"stage.2/connector/pos/{stream}" for stream in STREAMS}  # alone, where the first ran a pair
    if image:  # the second stage reads no picture
        expected |= {"stage.1/image/pixels", "stage.1/image/latents"}
    for stage, present in branches.items():
        expected.add(f"{stage}/sigmas")
        for stream in STREAMS:
            expected |= {f"{stage}/{name}/{stream}" for name in ("noise", "positions", "latents/final")}
            for step in ("step.000", "step.001"):
                expected |= {f"{stage}/{step}/{name}/{stream}" for name in ("latents", "guided_x0")}
                expected |= {f"{stage}/{step}/{branch}/velocity/{stream}" for branch in present}
    assert set(names) == expected
    milestones = ["stage.1/noise/video", "stage.1/latents/final/video", "upsample/input", "upsample/output"]
    milestones += ["stage.2/start/video", "stage.2/step.000/latents/video", "latents/decode/video", "vae/frames"]
    assert [name for name in names if name in milestones] == milestones


def test_block_taps_stand_behind_the_stage() -> None:
    trace = generator("ltx-2.3").generate(wanted(first=0.0, second=0.0), Probe(depth="block")).trace
    for stage in ("stage.1", "stage.2"):
        assert f"{stage}/step.001/cond/block.02/attn1/out" in trace
    assert not any(name.startswith("step.") for name in trace)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("model", MODELS)
def test_what_goes_from_stage_to_stage(model: str, dtype: str) -> None:
    taps, pipeline = sample(model, dtype).tensors, generator(model)._pipeline(dtype)
    mean, std = pipeline.vae.latents_mean, pipeline.vae.latents_std

    def apart(packed_BTC: torch.Tensor, rows: int) -> torch.Tensor:
        return packed_BTC.transpose(1, 2).reshape(1, 128, 2, rows, -1)

    stage_1 = apart(taps["stage.1/latents/final/video"], 2)
    statistics = [value.float().view(1, -1, 1, 1, 1) for value in (mean, std)]
    clean = stage_1 * statistics[1] + statistics[0]
    assert torch.equal(taps["upsample/input"], clean.to(DTYPES[dtype]))
    with torch.no_grad():
        folder = cached(model)
        upsampler = diffusers_stages.load_upsampler(folder, dtype, torch.device("cpu"))
        assert torch.equal(taps["upsample/output"], upsampler(taps["upsample/input"]))
    start = apart(taps["stage.2/start/video"], 4)
    assert start.dtype == DTYPES[dtype]
    shaped = [value.view(1, -1, 1, 1, 1) for value in (mean, std)]
    assert torch.equal(start, (taps["upsample/output"] - shaped[0]) / shaped[1])
    audio_mean, audio_std = pipeline.audio_vae.latents_mean.float(), pipeline.audio_vae.latents_std.float()
    through = (taps["stage.1/latents/final/audio"] * audio_std + audio_mean - audio_mean) / audio_std
    assert torch.equal(taps["stage.2/start/audio"], through)
    for stream in STREAMS:
        clean = taps[f"stage.2/start/{stream}"]
        noisy = SIGMAS[0] * taps[f"stage.2/noise/{stream}"].to(clean.dtype) + (1 - SIGMAS[0]) * clean
        assert torch.equal(taps[f"stage.2/step.000/latents/{stream}"], noisy.float())


def test_noise_of_both_stages_is_one_stream() -> None:
    source = noise_generator(REQUEST["seed"])
    for stage, shapes in SHAPES.items():
        video_BCFHW, audio_BCLM = draw_noise(source, *shapes)
        for image in (False, True):
            taps = sample("ltx-2.3", "bf16", image=image, **GUIDED).tensors
            assert torch.equal(taps[f"{stage}/noise/video"], video_BCFHW.flatten(2).transpose(1, 2))
            assert torch.equal(taps[f"{stage}/noise/audio"], audio_BCLM.transpose(1, 2).flatten(2))


def test_the_second_stage_holds_the_upsampled_first_frame() -> None:
    taps = sample(image=True, **GUIDED).tensors
    first = slice(0, 4 * 6)
    start = taps["stage.2/start/video"][:, first]
    for name in ("stage.2/step.000/latents/video", "stage.2/step.001/latents/video", "stage.2/latents/final/video"):
        assert torch.equal(taps[name][:, first], start), name
    assert not torch.equal(taps["stage.2/step.000/latents/video"], taps["stage.2/start/video"])


@pytest.mark.parametrize("image", [False, True])
@pytest.mark.parametrize("model", MODELS)
def test_echo_is_complete_and_true(model: str, image: bool) -> None:
    made = sample(model, image=image, **GUIDED)
    echo, taps = made.resolved, made.tensors
    assert not set(HANDSHAKE) - echo.keys()
    assert (echo["height"], echo["width"], echo["num_frames"]) == (128, 192, 9)
    assert (echo["steps"], echo["video_tokens"], echo["audio_tokens"]) == (2, 12, 9)
    assert echo["sigmas"] == taps["stage.1/sigmas"].tolist() == torch.tensor([0.9, 0.4, 0.0]).tolist()
    assert echo["guidance"] == {stream: FULL.as_dict() for stream in STREAMS}
    assert echo["stg_blocks"] == [1]
    assert echo["noise"] == {stream: tensor_digest(taps[f"stage.1/noise/{stream}"]) for stream in STREAMS}
    assert echo["image"] == (tensor_digest(taps["stage.1/image/pixels"]) if image else None)
    assert echo["embeds"] == {sign: tensor_digest(taps[f"text/{sign}/embeds"]) for sign in ("pos", "neg")}
    assert echo["weights"] == checkpoint.digests(cached(model), optional=("latent_upsampler",))
    assert echo["second_stage"] == {
        "height": 128,
        "width": 192,
        "sigmas": torch.tensor([*SIGMAS, 0.0]).tolist(),
        "video_tokens": 48,
        "audio_tokens": 9,
        "noise": {stream: tensor_digest(taps[f"stage.2/noise/{stream}"]) for stream in STREAMS},
        "positions": position_digests(made.trace, "stage.2"),
        "image": None,
        "lora": {
            "first": 0.25,
            "second": 1.0,
            "digest": checkpoint.digests(cached(model), optional=("distilled_lora",))["distilled_lora"],
        },
    }
    assert made.frames.shape == (1, 9, 128, 192, 3)
    assert taps["stage.1/latents/final/video"].shape == (1, 12, 128)
    assert made.latents["video"].equal(taps["stage.2/latents/final/video"])


def test_two_outputs_are_generated_as_each_alone() -> None:
    prompts = {"prompts": ("A raccoon.", "A tram in the fog."), "negative_prompts": ("blurry", "dark")}
    both = sample(first=0.0, second=0.0, **prompts)
    assert both.frames.shape == (2, 9, 128, 192, 3)
    assert not np.array_equal(both.frames[0], both.frames[1])
    swapped = sample(first=0.0, second=0.0, **{name: (values[0], values[0]) for name, values in prompts.items()})
    assert np.array_equal(both.frames[0], swapped.frames[0])  # noise of output 0 is the same


def test_injected_noise_replaces_draws_and_counts_them() -> None:
    noise = torch.arange(6.0).view(1, 2, 3)
    with InjectedNoise(noise, noise.transpose(1, 2)) as injected:
        assert torch.equal(torch.randn((1, 2, 3), dtype=torch.float32), noise)
        packed = torch.randn(1, 3, 2, dtype=torch.bfloat16)
        assert torch.equal(packed, noise.transpose(1, 2).bfloat16())
        assert packed.is_contiguous()
        with pytest.raises(RuntimeError, match=r"noise of shape \(4,\) is drawn; the injected noise is \(1, 2, 3\) or"):
            torch.randn(4)
    assert injected.draws == 3
    assert torch.randn(4).shape == (4,)


def test_a_pipeline_that_draws_twice_or_never_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    drawing = copy.copy(pipeline_ltx2.randn_tensor)
    for draws, replacement in (
        (2, lambda shape, **options: drawing(shape, **options) + 0 * drawing(shape, **options)),
        (0, lambda shape, **options: torch.zeros(shape, dtype=options["dtype"])),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(pipeline_ltx2, "randn_tensor", replacement)
            with pytest.raises(RuntimeError, match=f"drew {draws} times for the video state"):
                generator("ltx-2.3").generate(wanted(), Probe(depth="step"))
