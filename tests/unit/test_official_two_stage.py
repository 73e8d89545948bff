"""The official 1.0.0 as a reference beyond one stage of text: what is called here does what the pipelines do."""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import slow_parts
import torch
from engine_reference import ALL_GUIDANCE, CPU, tiny_case, tiny_request
from official_packages import require
from PIL import Image
from safetensors.torch import load_file, save_file

from conformance import checkpoint
from conformance.case import Case, ImageCondition, SecondStage
from conformance.errors import InputError
from conformance.generator import Probe, Sample
from conformance.handshake import handshake
from conformance.inputs import HALF_STEP_SEED, STEP_SEED, read_picture
from engine.generator import build as build_engine
from reference_impl.official import generator, upsampler
from reference_impl.official.load import load, load_transformer
from reference_impl.official.noise import Drawn, InjectedNoise, InjectedStepNoise
from reference_impl.official.stages import stages
from reference_impl.tiny import official_file
from reference_impl.tiny.build import cached

NAME = f"official-{require('1.0.0')}"

PICTURE = ImageCondition(picture="rings", height=75, width=101, crf=33, strength=0.8)
# the levels that the pipelines fix
LEVELS = (0.909375, 0.725, 0.421875)
PIPELINES = {
    "one-stage": ("ti2vid_one_stage", "TI2VidOneStagePipeline"),
    "two-stage": ("ti2vid_two_stages", "TI2VidTwoStagesPipeline"),
    "two-stage-hq": ("ti2vid_two_stages_hq", "TI2VidTwoStagesHQPipeline"),
}
STRENGTHS = {"one-stage": (0.0, 0.0), "two-stage": (0.0, 1.0), "two-stage-hq": (0.25, 0.5)}


def _case(model: str, pipeline: str, dtype: str = "bf16", **changes: Any) -> Case:
    kind = pipeline.rpartition("-")[0]
    first, second = STRENGTHS[kind]
    values = ALL_GUIDANCE | {"sigmas": None, "steps": 2}
    if pipeline.endswith("ti2v"):
        values["image"] = PICTURE
    if kind != "one-stage":
        stage = SecondStage(sigmas=LEVELS, lora_first=first, lora_second=second)
        values |= {"height": 128, "width": 192, "second": stage}
    case = tiny_case(model, dtype, tiny_request(), numerics=NAME)
    return replace(case, pipeline=pipeline, request=tiny_request(**(values | changes)))


def _run(case: Case, depth: str = "step") -> tuple[Sample, Probe]:
    probe = Probe(depth=depth)
    return generator.build(cached(case.model), "cpu").generate(case, probe), probe


class _Ledger:
    """Modules of the tiny folder where the packages load theirs; transformers by their own loader, from one file."""

    def __init__(self, model: str, text_tokens: int, strength: float) -> None:
        from ltx_core.loader import LTXV_LORA_COMFY_RENAMING_MAP, LoraPathStrengthAndSDOps
        from ltx_pipelines.utils import ModelLedger

        lora = checkpoint.distilled_lora(cached(model))
        self._ledger = ModelLedger(
            dtype=torch.bfloat16,
            device=CPU,
            checkpoint_path=str(official_file.cached(model)),
            loras=(LoraPathStrengthAndSDOps(str(lora), strength, LTXV_LORA_COMFY_RENAMING_MAP),),
        )
        modules = load(cached(model), "bf16", "cpu", text_tokens, image=True, second=True)
        self.video_encoder, self.video_decoder = lambda: modules.video_encoder, lambda: modules.video_decoder
        self.text_encoder, self.gemma_embeddings_processor = lambda: modules.text_encoder, lambda: modules.embeddings
        self.audio_decoder, self.vocoder = lambda: modules.audio_decoder, lambda: modules.vocoder
        self.spatial_upsampler = lambda: modules.upsampler

    def transformer(self) -> Any:
        found = self._ledger.transformer()
        for tensor in (*found.parameters(), *found.buffers()):  # out of the mapped file, whose alignment picks GEMMs
            tensor.data = tensor.data.clone()
        return found


def _pipeline(model: str, kind: str, text_tokens: int) -> tuple[Any, Any]:
    from ltx_pipelines.utils.types import PipelineComponents

    module = importlib.import_module(f"ltx_pipelines.{PIPELINES[kind][0]}")
    pipeline = object.__new__(getattr(module, PIPELINES[kind][1]))  # its constructor wants files for everything
    ledgers = [_Ledger(model, text_tokens, strength) for strength in STRENGTHS[kind]]
    pipeline.device, pipeline.dtype = CPU, torch.bfloat16
    pipeline.pipeline_components = PipelineComponents(dtype=torch.bfloat16, device=CPU)
    pipeline.model_ledger = pipeline.stage_1_model_ledger = ledgers[0]
    pipeline.stage_2_model_ledger = ledgers[1]
    return module, pipeline


@pytest.mark.slow
@pytest.mark.parametrize("pipeline", [f"{kind}-{task}" for kind in PIPELINES for task in ("t2v", "ti2v")])
@pytest.mark.parametrize("model", ["ltx-2", "ltx-2.3"])
def test_what_is_done_here_is_what_the_pipelines_do(
    model: str, pipeline: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    from ltx_core.components.guiders import MultiModalGuiderParams
    from ltx_core.components.noisers import GaussianNoiser
    from ltx_pipelines.utils.args import ImageConditioningInput

    case = _case(model, pipeline)
    request, image = case.request, case.request.image
    noise = [stage.noise[stream] for stage in stages(pipeline, request) for stream in ("video", "audio")]

    def noiser(generator: torch.Generator) -> Any:
        def add(state: Any, noise_scale: Any) -> Any:
            with Drawn(noise.pop(0)):
                return GaussianNoiser(generator)(state, noise_scale)

        return add

    module, theirs = _pipeline(model, pipeline.rpartition("-")[0], request.text_tokens)
    monkeypatch.setattr(module, "GaussianNoiser", noiser)
    for name in ("synchronize", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, lambda: None)
    images = []
    if image is not None:
        Image.fromarray(read_picture(image)).save(tmp_path / "first.png")
        images = [ImageConditioningInput(str(tmp_path / "first.png"), 0, image.strength, image.crf)]
    guiders = {
        f"{stream}_guider_params": MultiModalGuiderParams(
            cfg_scale=guidance.cfg,
            stg_scale=guidance.stg,
            stg_blocks=list(request.stg_blocks),
            rescale_scale=guidance.rescale,
            modality_scale=guidance.modality,
            skip_step=0,
        )
        for stream, guidance in (("video", request.video_guidance), ("audio", request.audio_guidance))
    }
    with torch.inference_mode():
        video, audio = theirs(
            prompt=request.prompts[0],
            negative_prompt=request.negative_prompts[0],
            seed=request.seed,
            height=request.height,
            width=request.width,
            num_frames=request.num_frames,
            frame_rate=request.frame_rate,
            num_inference_steps=request.steps,
            images=images,
            **guiders,
        )
        frames = torch.cat(list(video)).numpy()
    assert not noise
    mine, _ = _run(case)
    assert np.array_equal(mine.frames[0], frames)
    assert np.array_equal(mine.audio[0], audio.waveform.float().numpy())
    assert frames.std() > 20


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_what_a_two_stage_case_says_of_itself(dtype: str) -> None:
    case = _case("ltx-2.3", "two-stage-hq-ti2v", dtype)
    sample, probe = _run(case)
    said = sample.resolved
    assert (said["height"], said["width"], said["steps"], said["skip_v2a"]) == (128, 192, 2, False)
    assert (said["video_tokens"], said["audio_tokens"]) == (2 * 2 * 3, 9)
    second = said["second_stage"]
    assert (second["height"], second["width"], second["video_tokens"]) == (128, 192, 2 * 4 * 6)
    assert torch.equal(torch.tensor(second["sigmas"]), torch.tensor([*LEVELS, 0.0]))
    assert second["lora"].keys() == {"first", "second", "digest"}
    assert (second["lora"]["first"], second["lora"]["second"]) == (0.25, 0.5)
    assert said["image"] == probe.trace["stage.1/image/pixels"].sha256
    assert second["image"] == probe.trace["stage.2/image/pixels"].sha256
    assert len({said["image"], second["image"], *said["noise"].values(), *second["noise"].values()}) == 6
    assert said["weights"].keys() == {*checkpoint.COMPONENTS, "latent_upsampler", "model_index"}
    # two evaluations a step and the last one, with all branches in the first stage and one in the second
    for stage, steps, branches in (("stage.1", 2, 4), ("stage.2", 3, 1)):
        names = {name.split("/")[1] for name in probe.trace if name.startswith(f"{stage}/step.")}
        assert names == {f"step.{step:03d}{half}" for step in range(steps) for half in ("", ".mid")} | {
            f"step.{steps:03d}"
        }
        found = [name for name in probe.trace if name.startswith(stage) and name.endswith("velocity/video")]
        assert len(found) == (2 * steps + 1) * branches
    names = list(probe.trace)
    order = ["stage.1/latents/final/video", "upsample/input", "upsample/output", "stage.2/start/video"]
    assert [names.index(name) for name in order] == sorted(names.index(name) for name in order)
    shapes = [tuple(probe.tensors[name].shape) for name in order]
    assert shapes == [(1, 12, 128), (1, 128, 2, 2, 3), (1, 128, 2, 4, 6), (1, 48, 128)]


def test_schedules_are_for_4096_tokens_and_of_hq_for_those_of_the_first_stage() -> None:
    found = [stages(name, _case("ltx-2", name).request)[0].sigmas for name in ("two-stage-t2v", "two-stage-hq-t2v")]
    from ltx_core.components.schedulers import LTX2Scheduler

    assert torch.equal(found[0], LTX2Scheduler().execute(steps=2))
    assert torch.equal(found[1], LTX2Scheduler().execute(steps=2, default_number_of_tokens=2 * 2 * 3))
    assert not torch.equal(*found)


@pytest.mark.parametrize("seed", [STEP_SEED, HALF_STEP_SEED])
def test_what_res2s_injects_is_what_it_draws_itself(seed: int) -> None:
    from ltx_pipelines.utils import samplers

    own, injected = torch.Generator("cpu").manual_seed(seed), InjectedStepNoise(samplers._get_new_noise)
    untouched = torch.Generator("cpu").manual_seed(seed)
    for shape in ((1, 24, 128), (1, 9, 128), (1, 24, 128)):
        state = torch.zeros(shape)
        theirs = samplers._get_new_noise(state, own)
        assert torch.equal(injected(state, untouched), theirs)
        assert theirs.dtype == torch.float64
    with pytest.raises(KeyError):
        injected(state, torch.Generator("cpu").manual_seed(1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_injected_noise_is_weighted_by_the_packages(dtype: torch.dtype) -> None:
    from ltx_core.components.noisers import GaussianNoiser
    from ltx_core.types import LatentState

    seed, shape, level = 3, (1, 24, 128), torch.tensor(0.909375)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    latent, mask = torch.randn(shape, generator=torch.Generator().manual_seed(4)).to(dtype), torch.ones(1, 24, 1)
    mask[:, :6] = 1.0 - 0.7
    state = LatentState(latent=latent, denoise_mask=mask, positions=torch.zeros(1), clean_latent=latent)
    theirs = GaussianNoiser(torch.Generator().manual_seed(seed))(state, level)
    probe = Probe()
    noiser = InjectedNoise({"video": noise.float(), "audio": noise[:, :5].float()}, probe, start=True)
    assert torch.equal(noiser(state, level).latent, theirs.latent)
    assert list(probe.tensors) == ["start/video", "noise/video"]
    with pytest.raises(RuntimeError, match=r"injected noise \(1, 5, 128\) does not fit \(1, 24, 128\)"):
        noiser(state, level)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("pipeline", ["one-stage-t2v", "two-stage-hq-t2v"])
def test_without_video_to_audio_attention(pipeline: str, dtype: str) -> None:
    _, plain = _run(_case("ltx-2.3", pipeline, dtype), "block")
    sample, probe = _run(_case("ltx-2.3", pipeline, dtype, skip_v2a=True), "block")
    assert sample.resolved["skip_v2a"]
    assert {name for name in plain.trace if "/v2a/" in name}
    assert plain.trace.keys() - probe.trace.keys() == {name for name in plain.trace if "/v2a/" in name}
    assert probe.trace.keys() <= plain.trace.keys()
    first = "stage.1/step.000" if pipeline.startswith("two") else "step.000"
    for branch, changed in (("cond", True), ("uncond", True), ("stg", True), ("modality", False)):
        name = f"{first}/{branch}/velocity/audio"
        assert torch.equal(plain.tensors[name], probe.tensors[name]) != changed, branch
    # the picture of the first block, where audio has not reached the video by another way, stays as it was
    assert torch.equal(plain.tensors[f"{first}/cond/block.00/video"], probe.tensors[f"{first}/cond/block.00/video"])


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_lora_is_merged_as_the_builder_of_the_packages_does(dtype: str) -> None:
    from ltx_core.loader import LTXV_LORA_COMFY_RENAMING_MAP, SingleGPUModelBuilder
    from ltx_core.model.transformer import LTXV_MODEL_COMFY_RENAMING_MAP, LTXModelConfigurator

    lora = checkpoint.distilled_lora(cached("ltx-2.3"))
    builder = SingleGPUModelBuilder(
        LTXModelConfigurator, str(official_file.cached("ltx-2.3")), model_sd_ops=LTXV_MODEL_COMFY_RENAMING_MAP
    )
    builder = builder.lora(str(lora), 0.5, LTXV_LORA_COMFY_RENAMING_MAP)
    theirs = builder.build(CPU, {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]).state_dict()
    mine = load_transformer(cached("ltx-2.3"), dtype, "cpu", 0.5).velocity_model.state_dict()
    plain = load_transformer(cached("ltx-2.3"), dtype, "cpu", 0.0).velocity_model.state_dict()
    assert mine.keys() == theirs.keys()
    # weights without a LoRA keep their stored dtype there, whatever dtype is asked for
    assert all(torch.equal(mine[key], theirs[key].to(mine[key].dtype)) for key in mine)
    changed = {key for key in mine if not torch.equal(mine[key], plain[key])}
    factors = {key.removeprefix("diffusion_model.").partition(".lora_")[0] for key in load_file(lora)}
    assert changed == {f"{layer}.weight" for layer in factors}
    assert {mine[key].dtype for key in mine} == {theirs[key].dtype for key in changed}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda factors: factors.pop(min(factors)), "is no factor of a LoRA with a partner"),
        (lambda factors: factors.update(alpha=torch.ones(1)), "'alpha' is no factor of a LoRA"),
        (
            lambda factors: factors.update(
                {f"diffusion_model.unknown.lora_{side}.weight": torch.ones(1, 1) for side in "AB"}
            ),
            "layer 'unknown' is not in the transformer",
        ),
    ],
)
def test_a_lora_of_something_else_is_refused(wrong: Any, message: str, tmp_path: Any) -> None:
    from reference_impl.official.lora import merged

    factors = load_file(checkpoint.distilled_lora(cached("ltx-2")))
    wrong(factors)
    save_file(factors, tmp_path / "lora.safetensors")
    weights = load_transformer(cached("ltx-2"), "bf16", "cpu", 0.0).velocity_model.state_dict()
    with pytest.raises(InputError, match=message):
        merged(weights, tmp_path / "lora.safetensors", 1.0, torch.bfloat16)


def test_a_lora_cannot_be_added_to_weights_of_another_dtype() -> None:
    from reference_impl.official.lora import merged

    weights = load_transformer(cached("ltx-2"), "fp32", "cpu", 0.0).velocity_model.state_dict()
    with pytest.raises(InputError, match="expected bfloat16, to merge a LoRA"):
        merged(weights, checkpoint.distilled_lora(cached("ltx-2")), 1.0, torch.float32)


def test_an_incomplete_upsampler_configuration_is_refused(tmp_path: Any) -> None:
    (tmp_path / upsampler.FOLDER).mkdir()
    (tmp_path / upsampler.FOLDER / "config.json").write_text('{"in_channels": 128}')
    with pytest.raises(InputError, match="'mid_channels' is missing"):
        upsampler.upsampler_config(tmp_path)


@pytest.mark.parametrize(
    ("pipeline", "dtype", "changes"),
    [
        ("two-stage-ti2v", "bf16", {}),
        ("two-stage-hq-ti2v", "bf16", {"skip_v2a": True}),
        ("two-stage-hq-ti2v", "fp32", {"sigmas": (0.99, 0.61), "image": replace(PICTURE, strength=0.3, crf=0)}),
        ("two-stage-ti2v", "fp32", {"prompts": ("blurry",), "image": replace(PICTURE, strength=1.0)}),
    ],
    ids=["euler", "res2s-without-v2a", "res2s-weakly-given", "euler-same-prompts"],
)
@pytest.mark.parametrize("model", slow_parts.MODELS)
def test_the_engine_is_equal_bit_for_bit(model: str, pipeline: str, dtype: str, changes: dict[str, Any]) -> None:
    case, mine = _case(model, pipeline, dtype, **changes), Probe()
    engine = build_engine(cached(model), "cpu").generate(case, mine)
    official, theirs = _run(case, "block")
    assert mine.trace.keys() == theirs.trace.keys()
    assert [name for name, tap in mine.trace.items() if tap.sha256 != theirs.trace[name].sha256] == []
    assert handshake(engine.resolved, official.resolved) is None
    assert np.array_equal(engine.frames, official.frames)
    assert np.array_equal(engine.audio, official.audio)
