"""Generator ``official-VERSION``: video with audio through the user's own ltx-core and ltx-pipelines.

The packages do all arithmetic; noise and, where the case states them, noise levels are injected. What is done here is
what ``TI2VidOneStagePipeline``, ``TI2VidTwoStagesPipeline`` and ``TI2VidTwoStagesHQPipeline`` do on a GPU, in their
order.
"""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from conformance import checkpoint, quantization
from conformance.case import Case, Guidance, Request
from conformance.errors import InputError, ReferenceMissing, UnsupportedCase, bad_field
from conformance.generator import Probe, Sample, position_digests, tensor_digest
from reference_impl.official import packages, versions
from reference_impl.official.config import model_version
from reference_impl.official.image import conditionings
from reference_impl.official.load import DTYPES, Modules, load, load_transformer
from reference_impl.official.quantization import used
from reference_impl.official.stages import Stage, stages
from reference_impl.official.taps import record, record_decoders
from reference_impl.official.upsampler import FOLDER as UPSAMPLER
from reference_impl.official.upsampler import upsample

MODELS = {"ltx-2": "2.0", "ltx-2.3": "2.3"}


def build(folder: Path, device: str) -> OfficialGenerator:
    """The generator over a checkpoint in the diffusers layout.

    ReferenceMissing when the packages are absent; InputError when the folder is no whole checkpoint.
    """
    version = packages.install()
    checkpoint.verify(folder)
    return OfficialGenerator(folder, device, version)


class OfficialGenerator:
    """See the module. Modules are loaded for every case: their text encoder knows the length of prompts."""

    def __init__(self, folder: Path, device: str, version: str) -> None:
        self.name = f"official-{version}"
        self._folder, self._device, self._version = folder, device, version

    @torch.inference_mode()
    def generate(self, case: Case, probe: Probe) -> Sample:
        """Produce the case. UnsupportedCase and InputError say in one line what cannot be done, ReferenceMissing that
        the packages are of another version than the case's numerics.
        """
        if case.numerics.startswith("official-") and case.numerics != self.name:
            raise ReferenceMissing(f"{case.id}: wants {case.numerics}; installed is {self.name}; {packages.HOW}")
        check_case(case, versions.of(self._version))
        if model_version(self._folder) != MODELS[case.model]:
            raise InputError(f"{self._folder}: not a checkpoint of {case.model}, which {case.id} asks for")
        request, api = case.request, versions.installed()
        plan = stages(case.pipeline, request)
        quantized = quantization.resolve(case.quantization, self._folder)
        if quantized != "none" and any(stage.lora for stage in plan):
            raise UnsupportedCase(f"{case.id}: official is not run with {quantized} weights and a LoRA")
        modules = load(
            self._folder,
            case.dtype,
            self._device,
            request.text_tokens,
            lora=plan[0].lora,
            image=request.image is not None,
            second=request.second is not None,
            quantization=quantized,
        )
        if any(block >= modules.blocks for block in request.stg_blocks):
            raise bad_field("request", "stg_blocks", request.stg_blocks, f"block indices below {modules.blocks}")
        text = _encode(modules, request, probe)
        run = _Run(case=case, folder=self._folder, device=self._device, api=api, probe=probe)
        final = _sampled(modules, plan, text, run)
        with record_decoders(modules, probe):
            frames, floats = api.decode_video(final["video"], modules.video_decoder)
            audio = api.decode_audio(final["audio"], modules.audio_decoder, modules.vocoder)
        return Sample(
            frames=frames.cpu().numpy()[None],
            frames_float=floats.float().cpu().numpy(),
            audio=audio.waveform.float().cpu().numpy()[None],
            audio_rate=audio.sampling_rate,
            latents={stream: state.float().cpu() for stream, state in final["packed"].items()},
            trace=probe.trace,
            tensors=probe.tensors,
            resolved=_resolved(case, plan, self._folder, probe)
            | {"quantization": used(modules.transformer.velocity_model)},
            ledger={
                "ltx_core": self._version,
                "text_attention": modules.text_encoder.model.config._attn_implementation,
            },
        )


@dataclass(frozen=True, kw_only=True)
class _Run:
    case: Case
    folder: Path
    device: str
    api: versions.Version
    probe: Probe


def check_case(case: Case, api: versions.Version) -> None:
    """UnsupportedCase for what the packages' pipelines, or the calls of them here, cannot do."""
    for field, value, able in (
        ("model", case.model, tuple(MODELS)),
        ("pipeline", case.pipeline, api.PIPELINES),
        ("layout", case.layout.name, ("single",)),
        ("number of prompts", len(case.request.prompts), (1,)),
        ("vae_tiling", case.request.vae_tiling, (None,)),  # official tiles are blended otherwise
        ("skip_v2a", case.request.skip_v2a, (False, True) if api.SKIPS_V2A else (False,)),
    ):
        if value not in able:
            raise UnsupportedCase(f"{case.id}: official does not run {field} {value!r}; it runs {able}")
    video, audio = case.request.video_guidance, case.request.audio_guidance
    if (video.stg > 0) != (audio.stg > 0):
        raise UnsupportedCase(f"{case.id}: official perturbs only the stream whose stg is above 0, and one here is 0")


def _guided(video: Guidance, audio: Guidance) -> bool:
    return any(guidance.cfg != 1.0 for guidance in (video, audio))


def _encode(modules: Modules, request: Request, probe: Probe) -> dict[str, Any]:
    """``EmbeddingsProcessorOutput`` of the positive and, under CFG, the negative prompt."""
    prompts = {"pos": request.prompts[0]}
    if _guided(request.video_guidance, request.audio_guidance):
        prompts["neg"] = request.negative_prompts[0]
    states = versions.installed().encode(modules.text_encoder, list(prompts.values()))
    out = {}
    for sign, (hidden, mask) in zip(prompts, states, strict=True):
        probe.tap(f"text/{sign}/embeds", torch.stack(hidden, dim=-1).flatten(2))
        probe.tap(f"text/{sign}/mask", mask)
        out[sign] = modules.embeddings.process_hidden_states(hidden, mask)
        probe.tap(f"connector/{sign}/video", out[sign].video_encoding)
        probe.tap(f"connector/{sign}/audio", out[sign].audio_encoding)
    return out


def _sampled(modules: Modules, stages: list[Stage], text: dict[str, Any], run: _Run) -> dict[str, Any]:
    """Final states: ``video`` and ``audio`` unpacked, and ``packed`` ones by stream."""
    request, probe, dtype = run.case.request, run.probe, DTYPES[run.case.dtype]
    final, initial, lora = {}, None, stages[0].lora
    heard: dict[str, Any] = {}
    for stage in stages:
        with probe.scope(stage.name) if stage.name else contextlib.nullcontext():
            probe.tap("sigmas", stage.sigmas)
            given = conditionings(request.image, stage, modules.video_encoder, dtype, torch.device(run.device), probe)
            if stage.lora != lora:
                modules, lora = replace(modules, transformer=None), stage.lora  # first give the memory back
                transformer = load_transformer(run.folder, run.case.dtype, run.device, lora)
                modules = replace(modules, transformer=transformer)
            negative = text["neg"].video_encoding if "neg" in text and stage.guided else None
            with record(modules, probe, negative, stage.second_order):
                final = run.api.denoise(modules, stage, request, text, dtype, probe, given=given, initial=initial)
        if not heard or not run.api.AUDIO_OF_FIRST_STAGE:
            heard = final
        if stage is not stages[-1]:
            video = upsample(final["video"], modules.video_encoder, modules.upsampler, probe)
            initial = {"video": video, "audio": final["audio"]}
    packed = {"video": final["packed"]["video"], "audio": heard["packed"]["audio"]}
    return {"video": final["video"], "audio": heard["audio"], "packed": packed}


def _resolved(case: Case, stages: list[Stage], folder: Path, probe: Probe) -> dict[str, Any]:
    request, first = case.request, stages[0]
    signs = [sign for sign in ("pos", "neg") if f"text/{sign}/embeds" in probe.trace]
    return {
        "height": request.height,
        "width": request.width,
        "num_frames": request.num_frames,
        "frame_rate": request.frame_rate,
        "steps": len(first.sigmas) - 1,
        **_stage(first, probe),
        "guidance": {"video": asdict(request.video_guidance), "audio": asdict(request.audio_guidance)},
        "stg_blocks": list(request.stg_blocks),
        "dtype": case.dtype,
        "skip_v2a": request.skip_v2a,
        "second_stage": None if len(stages) == 1 else _second(stages, folder, probe),
        "vae_tiling": None,
        "embeds": {sign: probe.trace[f"text/{sign}/embeds"].sha256 for sign in signs},
        "batch": 1,
        "text_tokens": request.text_tokens,
        "weights": checkpoint.digests(folder, optional=() if request.second is None else (UPSAMPLER,)),
    }


def _stage(stage: Stage, probe: Probe) -> dict[str, Any]:
    pixels = probe.trace.get(f"{stage.name}/image/pixels".lstrip("/"))
    return {
        "sigmas": stage.sigmas.tolist(),
        "video_tokens": stage.noise["video"].shape[1],
        "audio_tokens": stage.noise["audio"].shape[1],
        "noise": {stream: tensor_digest(state) for stream, state in stage.noise.items()},
        "positions": position_digests(probe.trace, stage.name),
        "image": None if pixels is None else pixels.sha256,
    }


def _second(stages: list[Stage], folder: Path, probe: Probe) -> dict[str, Any]:
    first, second = stages
    used = first.lora or second.lora
    lora = {
        "first": first.lora,
        "second": second.lora,
        "digest": checkpoint.digests(folder, optional=(checkpoint.LORA,))[checkpoint.LORA] if used else None,
    }
    return {"height": second.size.height, "width": second.size.width, **_stage(second, probe), "lora": lora}
