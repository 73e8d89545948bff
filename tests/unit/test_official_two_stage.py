"""The official 1.0.0 as a reference beyond one stage of text: what is called here does what the pipelines do."""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from engine_reference import ALL_GUIDANCE, CPU, tiny_case, tiny_request
from PIL import Image
from safetensors.torch import load_file, save_file

from conformance import checkpoint
from conformance.case import Case, ImageCondition, SecondStage
from conformance.errors import InputError, ReferenceMissing
from conformance.generator import Probe, Sample
from conformance.inputs import HALF_STEP_SEED, STEP_SEED, read_picture
from reference_impl.official import generator, packages, upsampler
from reference_impl.official.load import load, load_transformer
from reference_impl.official.noise import Drawn, InjectedNoise, InjectedStepNoise
from reference_impl.official.stages import stages
from reference_impl.tiny import official_file
from reference_impl.tiny.build import cached

try:
    NAME = f"official-{packages.install()}"
except ReferenceMissing as missing:
    pytest.skip(str(missing), allow_module_level=True)
if NAME != "official-1.0.0":
    pytest.skip(f"the packages are {NAME}", allow_module_level=True)

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
