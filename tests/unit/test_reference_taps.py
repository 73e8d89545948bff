"""What the taps of the diffusers generator say, recomputed by other means."""

from __future__ import annotations

import pytest
import torch
from reference_cases import FULL, GUIDED, case, generator, run

from conformance.generator import BLOCK_TAPS, Probe, Sample
from conformance.inputs import draw_noise, noise_generator
from reference_impl import diffusers_call
from reference_impl.tiny.build import MODELS
from reference_impl.tiny.transformer import LAYERS

STREAMS = ("video", "audio")


def both(*names: str) -> set[str]:
    return {f"{name}/{stream}" for name in names for stream in STREAMS}


def step_taps(steps: int, branches: tuple[str, ...], signs: tuple[str, ...]) -> set[str]:
    names = {"sigmas", "vae/frames", "audio/waveform"}
    names |= both("noise", "positions", "latents/final", "latents/decode", *(f"connector/{sign}" for sign in signs))
    names |= {f"text/{sign}/{part}" for sign in signs for part in ("embeds", "mask")}
    for step in range(steps):
        names |= both(f"step.{step:03d}/latents", f"step.{step:03d}/guided_x0")
        names |= both(*(f"step.{step:03d}/{branch}/velocity" for branch in branches))
    return names


def block_taps(steps: int, branches: tuple[str, ...]) -> set[str]:
    names: set[str] = set()
    for step in range(steps):
        for branch in branches:
            for block in range(LAYERS):
                inner = set(BLOCK_TAPS.values()) | set(STREAMS)
                if branch == "modality":
                    inner -= {"a2v/out", "v2a/out"}
                if branch == "stg" and block == 1:  # values pass straight through
                    inner -= {"attn1/q_norm", "attn1/k_norm"}
                names |= {f"step.{step:03d}/{branch}/block.{block:02d}/{tap}" for tap in inner}
    return names


@pytest.mark.parametrize("model", MODELS)
def test_taps_are_complete(model: str) -> None:
    branches = ("uncond", "cond", "stg", "modality")
    expected = step_taps(2, branches, ("pos", "neg"))
    assert set(run(model, **GUIDED).trace) == expected
    assert set(run(model, depth="block", **GUIDED).trace) == expected | block_taps(2, branches)
    assert set(run(model).trace) == step_taps(2, ("cond",), ("pos",))


def test_noise_is_the_harness_s_in_token_order() -> None:
    sample = run()
    video_BCFHW, audio_BCLM = draw_noise(noise_generator(7), (1, 128, 2, 2, 3), (1, 8, 9, 16))
    assert torch.equal(sample.tensors["noise/video"], video_BCFHW.permute(0, 2, 3, 4, 1).flatten(1, 3))
    assert torch.equal(sample.tensors["noise/audio"], audio_BCLM.transpose(1, 2).flatten(2))
    for stream in STREAMS:
        assert sample.trace[f"noise/{stream}"].dtype == "float32"
        assert torch.equal(sample.tensors[f"step.000/latents/{stream}"], sample.tensors[f"noise/{stream}"])


def test_noise_of_another_shape_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        diffusers_call, "draw_noise", lambda source, video, audio: draw_noise(source, (*video[:3], 2, 4), audio)
    )
    with pytest.raises(RuntimeError, match="the injected noise is"):
        run()


def forward(sample: Sample, model: str, sign: str, **switches: object) -> dict[str, torch.Tensor]:
    """Step 1 of a sample through the transformer alone, with the context of ``pos`` or ``neg``."""
    taps = sample.tensors
    transformer = generator(model)._pipeline("fp32").transformer
    sigma = taps["sigmas"][1:2] * 1000
    with torch.no_grad():
        output = transformer(
            hidden_states=taps["step.001/latents/video"],
            audio_hidden_states=taps["step.001/latents/audio"],
            encoder_hidden_states=taps[f"connector/{sign}/video"],
            audio_encoder_hidden_states=taps[f"connector/{sign}/audio"],
            timestep=sigma,
            sigma=sigma,
            video_coords=taps["positions/video"],
            audio_coords=taps["positions/audio"],
            use_cross_timestep=True,
            return_dict=False,
            **switches,
        )
    return dict(zip(STREAMS, output, strict=True))


@pytest.mark.parametrize("model", MODELS)
def test_branches_are_what_they_are_called(model: str) -> None:
    sample = run(model, **GUIDED)
    branches = {
        "cond": forward(sample, model, "pos"),
        "uncond": forward(sample, model, "neg"),
        "stg": forward(sample, model, "pos", spatio_temporal_guidance_blocks=[1]),
        "modality": forward(sample, model, "pos", isolate_modalities=True),
    }
    for stream in STREAMS:
        for name, own in branches.items():
            tapped = sample.tensors[f"step.001/{name}/velocity/{stream}"]
            assert torch.allclose(own[stream], tapped, rtol=0, atol=2e-5), (name, stream)
            for other in branches.keys() - {name}:
                assert not torch.allclose(branches[other][stream], tapped, rtol=0, atol=1e-3), (name, other, stream)


@pytest.mark.parametrize("model", MODELS)
def test_steps_follow_from_the_velocities(model: str) -> None:
    """Guidance, rescale and Euler step, written out in fp64."""
    taps = {name: value.double() for name, value in run(model, **GUIDED).tensors.items()}
    sigmas = taps["sigmas"]
    for step, stream in ((step, stream) for step in (0, 1) for stream in STREAMS):
        at = f"step.{step:03d}"
        state = taps[f"{at}/latents/{stream}"]
        names = ("cond", "uncond", "stg", "modality")
        c, u, p, m = (state - sigmas[step] * taps[f"{at}/{name}/velocity/{stream}"] for name in names)
        mixed = c + (FULL.cfg - 1) * (c - u) + FULL.stg * (c - p) + (FULL.modality - 1) * (c - m)
        guided = mixed * (FULL.rescale * c.std() / mixed.std() + 1 - FULL.rescale)
        assert torch.allclose(guided, taps[f"{at}/guided_x0/{stream}"], rtol=1e-5, atol=1e-5)
        velocity = (state - guided) / sigmas[step]
        after = taps[f"step.001/latents/{stream}" if step == 0 else f"latents/final/{stream}"]
        assert torch.allclose(state + velocity * (sigmas[step + 1] - sigmas[step]), after, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("model", MODELS)
def test_decoders_get_the_denormalised_final_state(model: str) -> None:
    sample = run(model)
    taps, pipeline = sample.tensors, generator(model)._pipeline("fp32")
    video = taps["latents/final/video"].unflatten(1, (2, 2, 3)).permute(0, 4, 1, 2, 3)
    mean, std = (value.view(1, -1, 1, 1, 1) for value in (pipeline.vae.latents_mean, pipeline.vae.latents_std))
    assert torch.allclose(video * std + mean, taps["latents/decode/video"], atol=1e-6)
    audio = taps["latents/final/audio"] * pipeline.audio_vae.latents_std + pipeline.audio_vae.latents_mean
    assert torch.allclose(audio.unflatten(2, (8, 16)).transpose(1, 2), taps["latents/decode/audio"], atol=1e-6)
    assert torch.equal(sample.latents["audio"], taps["latents/final/audio"])
    pixels = ((taps["vae/frames"] / 2 + 0.5).clamp(0, 1) * 255).round().permute(0, 2, 3, 4, 1)
    assert torch.equal(pixels, torch.from_numpy(sample.frames).float())
    assert torch.equal(taps["audio/waveform"], torch.from_numpy(sample.audio))


def test_positions_follow_the_frame_rate_and_so_does_the_audio_length() -> None:
    fast, slow = run(), run(frame_rate=12.5)
    assert fast.resolved["audio_tokens"] == round(9 / 24.0 * 25)
    assert slow.resolved["audio_tokens"] == round(9 / 12.5 * 25)
    for sample, rate in ((fast, 24.0), (slow, 12.5)):
        bounds = sample.tensors["positions/video"]
        assert tuple(bounds.shape) == (1, 3, 12, 2)
        assert torch.allclose(bounds[0, 0, -1], torch.tensor([1.0, 9.0]) / rate)
        assert bounds[0, 2, :3].tolist() == [[0.0, 32.0], [32.0, 64.0], [64.0, 96.0]]


def test_padding_and_prompts_matter() -> None:
    short, long = run(), run(text_tokens=48)
    assert not torch.allclose(short.latents["video"], long.latents["video"], atol=1e-2)
    valid = 23  # tokens of the prompt; what follows are registers that have seen it
    assert short.tensors["text/pos/mask"].sum() == valid
    other = run(prompts=("A raccoon in the snow.",))
    gap = (short.tensors["connector/pos/video"] - other.tensors["connector/pos/video"]).abs().amax(-1)[0]
    assert (gap[valid:] > 1e-3).all()


def test_prompts_of_different_length_share_a_batch() -> None:
    prompts = ("fog", "A raccoon peers out of a hollow.")
    pair = run(**GUIDED | {"prompts": prompts, "negative_prompts": ("", "blurry"), "steps": 2})
    assert pair.frames.shape[0] == 2
    assert pair.resolved["prompt_tokens"] == {"pos": [4, 32], "neg": [1, 7]}
    alone = run(**GUIDED | {"prompts": prompts[:1], "negative_prompts": ("",)})
    for name in ("text/pos/embeds", "connector/pos/video", "connector/neg/audio"):
        assert torch.allclose(pair.tensors[name][:1], alone.tensors[name], atol=1e-4), name
    assert not torch.allclose(pair.latents["video"][0], pair.latents["video"][1], atol=0.1)


def test_bf16_weights_and_text_keep_an_fp32_state() -> None:
    trace = run("ltx-2", "bf16", **GUIDED).trace
    for name, tap in trace.items():
        wide = name.startswith(("noise", "sigmas", "positions", "latents/final")) or "/latents/" in name or "x0" in name
        expected = "int64" if name.endswith("/mask") else "float32" if wide else "bfloat16"
        assert tap.dtype == expected, name
        assert tap.finite, name


@pytest.mark.parametrize("fails", [False, True])
def test_no_hook_is_left_behind(fails: bool) -> None:
    run("ltx-2")  # transformers hangs hooks of its own on its first call
    pipeline = generator("ltx-2")._pipeline("fp32")

    def hooks() -> int:
        return sum(
            len(module._forward_hooks) + len(module._forward_pre_hooks)
            for component in pipeline.components.values()
            if isinstance(component, torch.nn.Module)
            for module in component.modules()
        )

    before = hooks()
    probe = Probe(depth="block")
    if fails:
        probe.tap("step.001/cond/velocity/video", torch.zeros(1))  # a name the run needs
        with pytest.raises(ValueError, match="recorded twice"):
            generator("ltx-2").generate(case("ltx-2"), probe)
    else:
        generator("ltx-2").generate(case("ltx-2"), probe)
    assert hooks() == before
    assert run("ltx-2").latents["video"].isfinite().all()
