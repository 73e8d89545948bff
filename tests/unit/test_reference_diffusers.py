"""The diffusers generator against diffusers itself, and what it refuses."""

from __future__ import annotations

import inspect
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import LTX2Pipeline
from reference_cases import FULL, GUIDED, OFF, REQUEST, case, generator, run
from safetensors.torch import load_file, save_file

from conformance import checkpoint
from conformance.case import Guidance, Layout
from conformance.errors import InputError, UnsupportedCase
from conformance.generator import HANDSHAKE, Probe, tensor_digest
from reference_impl import diffusers_call, diffusers_ltx2
from reference_impl.diffusers_load import DTYPES, load
from reference_impl.tiny.build import MODELS, cached


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("model", MODELS)
def test_equals_the_plain_pipeline(model: str, dtype: str) -> None:
    """The pipeline's own draws from a CPU generator are the harness's noise, so nothing needs injecting here."""
    sample = run(model, dtype, sigmas=None, **GUIDED)
    plain = LTX2Pipeline.from_pretrained(cached(model), dtype=DTYPES[dtype], local_files_only=True)
    plain.set_progress_bar_config(disable=True)
    for module in plain.components.values():
        for tensor in (*module.parameters(), *module.buffers()) if isinstance(module, torch.nn.Module) else ():
            tensor.data = tensor.data.clone()  # GEMMs on a CPU depend on alignment
    given: dict[str, Any] = {
        "prompt": list(REQUEST["prompts"]),
        "negative_prompt": list(REQUEST["negative_prompts"]),
        "height": 64,
        "width": 96,
        "num_frames": 9,
        "frame_rate": 24.0,
        "num_inference_steps": 2,
        "guidance_scale": FULL.cfg,
        "stg_scale": FULL.stg,
        "modality_scale": FULL.modality,
        "guidance_rescale": FULL.rescale,
        "audio_guidance_scale": FULL.cfg,
        "audio_stg_scale": FULL.stg,
        "audio_modality_scale": FULL.modality,
        "audio_guidance_rescale": FULL.rescale,
        "spatio_temporal_guidance_blocks": [1],
        "max_sequence_length": 32,
    }
    seeded = [torch.Generator("cpu").manual_seed(REQUEST["seed"]) for _ in range(2)]
    exact = plain(**given, generator=seeded[0], output_type="np")
    assert sample.frames_float is not None
    assert sample.audio is not None
    assert np.array_equal(sample.frames_float, exact.frames)
    assert np.array_equal(sample.audio, exact.audio.float().numpy())
    images = plain(**given, generator=seeded[1], output_type="pil").frames[0]
    assert np.array_equal(sample.frames[0], np.stack([np.asarray(image) for image in images]))


def test_every_argument_of_the_pipeline_is_given() -> None:
    parameters = set(inspect.signature(LTX2Pipeline.__call__).parameters) - {"self"}
    assert set(diffusers_call.arguments(case().request)) == parameters


@pytest.mark.parametrize("model", MODELS)
def test_echo_is_complete_and_true(model: str) -> None:
    audio = Guidance(cfg=5.0, stg=0.5, modality=1.5, rescale=0.3)
    request = case(model, **GUIDED | {"audio_guidance": audio}).request
    sample = run(model, depth="step", **GUIDED | {"audio_guidance": audio})
    echo = sample.resolved
    assert not set(HANDSHAKE) - echo.keys()
    for key in ("height", "width", "num_frames", "frame_rate", "steps", "text_tokens"):
        assert echo[key] == getattr(request, key)
    assert echo["guidance"] == {"video": FULL.as_dict(), "audio": audio.as_dict()}
    assert echo["stg_blocks"] == [1]
    assert (echo["video_tokens"], echo["audio_tokens"]) == (2 * 2 * 3, 9)
    assert echo["noise"] == {stream: tensor_digest(sample.tensors[f"noise/{stream}"]) for stream in ("video", "audio")}
    assert echo["embeds"] == {sign: tensor_digest(sample.tensors[f"text/{sign}/embeds"]) for sign in ("pos", "neg")}
    assert echo["weights"] == checkpoint.digests(cached(model))
    assert echo["dtype"] == "fp32"
    assert echo["prompt_tokens"] == {"pos": [23], "neg": [7]}
    assert echo["use_cross_timestep"] is True
    assert sample.frames.shape == (1, 9, 64, 96, 3)
    assert sample.audio_rate == {"ltx-2": 24000, "ltx-2.3": 48000}[model]
    assert sample.ledger["attention_backend"] == "native"
    assert sample.shared == ()
    json.dumps([echo, sample.ledger])


def test_injected_sigmas_arrive_and_the_own_schedule_is_the_checkpoints() -> None:
    injected = run()
    expected = torch.tensor([0.9, 0.4, 0.0])
    assert injected.resolved["sigmas"] == expected.tolist()
    assert torch.equal(injected.tensors["sigmas"], expected)
    assert injected.ledger["scheduler_config"]["use_dynamic_shifting"] is False
    own = run(sigmas=None)
    assert own.resolved["sigmas"] != injected.resolved["sigmas"]
    assert own.resolved["sigmas"][-2:] == [pytest.approx(0.1, abs=1e-6), 0.0]  # shift_terminal
    assert own.ledger["scheduler_config"]["use_dynamic_shifting"] is True
    assert run().latents["video"].equal(injected.latents["video"])  # and back


def test_a_scheduler_that_changes_injected_sigmas_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diffusers_call, "injecting", lambda scheduler: scheduler)
    with pytest.raises(RuntimeError, match="the scheduler changed the injected sigmas"):
        run()


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("field", ["cfg", "stg", "modality", "rescale"])
def test_every_guidance_branch_changes_both_streams(model: str, field: str) -> None:
    base = OFF.as_dict() | {"cfg": 3.0 if field == "rescale" else 1.0}
    on = Guidance(**base | {field: getattr(FULL, field)})
    blocks = (1,) if field == "stg" else ()
    plain = run(model, video_guidance=Guidance(**base), audio_guidance=Guidance(**base))
    guided = run(model, video_guidance=on, audio_guidance=on, stg_blocks=blocks)
    for stream in ("video", "audio"):
        difference = guided.latents[stream] - plain.latents[stream]
        assert difference.norm() > 0.02 * plain.latents[stream].norm(), stream


def test_refuses_what_it_cannot_do() -> None:
    refused = {
        "layout 'tp2'": case(layout=Layout.parse("tp2")),
        "pipeline 'retake'": case(pipeline="retake"),
        "model 'wan-2.2'": case("wan-2.2"),
        "audio stg of 0.0 for absent and would use the video's 1.0": case(**GUIDED | {"audio_guidance": OFF}),
        "audio rescale of 0.0": case(video_guidance=Guidance(**OFF.as_dict() | {"rescale": 0.5})),
    }
    for reason, wanted in refused.items():
        with pytest.raises(UnsupportedCase) as caught:
            generator("ltx-2.3").generate(wanted, Probe())
        assert reason in str(caught.value)
    video_only = case(video_guidance=OFF, audio_guidance=FULL, stg_blocks=(1,))
    diffusers_ltx2.check_case(video_only)  # this way round the pipeline keeps both


def test_bad_input_is_named() -> None:
    for wanted, reason in (
        (case(**GUIDED | {"stg_blocks": (0, 3)}), "'stg_blocks' is (0, 3); expected block indices below 3"),
        (case(text_tokens=40), "'text_tokens' is 40; expected a multiple of 16 registers"),
        (case("ltx-2"), "transformer/config.json is not one of ltx-2, which ltx-2/one-stage-t2v"),
    ):
        with pytest.raises(InputError) as caught:
            generator("ltx-2.3").generate(wanted, Probe())
        assert reason in str(caught.value)


def _config(folder: Path, name: str, **changes: Any) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("component", "change", "reason"),
    [
        ("transformer", {"perturbed_attn": False}, "diffusers ignores STG"),
        ("vae", {"decoder_inject_noise": [False, True, False, False, False]}, "video decoder draws noise"),
        ("vae", {"decoder_inject_noise": True}, "video decoder draws noise"),
        ("vae", {"timestep_conditioning": True}, "video decoder draws noise"),
        ("scheduler", {"stochastic_sampling": True}, "scheduler draws noise"),
    ],
)
def test_checkpoints_that_would_mislead_are_refused(component: str, change: dict[str, Any], reason: str) -> None:
    folder = cached("ltx-2.3")
    pipeline = load(folder, "fp32", "cpu")
    diffusers_ltx2.check_checkpoint(case(**GUIDED), pipeline, folder)
    getattr(pipeline, component).register_to_config(**change)
    with pytest.raises(UnsupportedCase, match=reason):
        diffusers_ltx2.check_checkpoint(case(**GUIDED), pipeline, folder)


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    shutil.copytree(cached("ltx-2"), tmp_path / "c")
    file = tmp_path / "c" / "connectors" / "diffusion_pytorch_model.safetensors"
    whole = load_file(file)
    for change, reason in (
        ({"extra": torch.ones(1)}, "1 unexpected keys, the first is extra"),
        ({"text_proj_in.weight": None}, "1 missing keys, the first is text_proj_in.weight"),
        ({"text_proj_in.weight": torch.ones(2, 2)}, "connectors: cannot be loaded"),
    ):
        save_file({key: value for key, value in (whole | change).items() if value is not None}, file)
        with pytest.raises(InputError) as caught:
            load(tmp_path / "c", "fp32", "cpu")
        assert reason in str(caught.value)
        assert "\n" not in str(caught.value)
    save_file(whole, file)
    _config(tmp_path / "c", "vocoder/config.json", _class_name="Vocoder9")
    with pytest.raises(InputError, match=r"vocoder/config\.json: '_class_name' is 'Vocoder9'"):
        load(tmp_path / "c", "fp32", "cpu")


def test_parameters_are_aligned_copies() -> None:
    pipeline = load(cached("ltx-2.3"), "bf16", "cpu")
    for name in ("transformer", "connectors", "text_encoder", "vae", "audio_vae", "vocoder"):
        for tensor in getattr(pipeline, name).state_dict().values():
            assert tensor.data_ptr() % 64 == 0, name
