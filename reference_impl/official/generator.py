"""Generator ``official-VERSION``: one-stage text-to-video through the user's own ltx-core and ltx-pipelines.

The packages do all arithmetic; noise and, where the case states them, noise levels are injected. What is done here is
what ``TI2VidOneStagePipeline`` does on a GPU: encode, denoise, decode, in this order.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from conformance import checkpoint
from conformance.case import Case, Guidance, Request
from conformance.errors import InputError, ReferenceMissing, UnsupportedCase, bad_field
from conformance.generator import Probe, Sample, tensor_digest
from conformance.inputs import draw_noise, noise_generator
from reference_impl.official import packages, versions
from reference_impl.official.arguments import pixels
from reference_impl.official.config import model_version
from reference_impl.official.load import DTYPES, Modules, load
from reference_impl.official.taps import STREAMS, record

MODELS = {"ltx-2": "2.0", "ltx-2.3": "2.3"}
PIPELINE = "one-stage-t2v"


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
        check_case(case)
        if model_version(self._folder) != MODELS[case.model]:
            raise InputError(f"{self._folder}: not a checkpoint of {case.model}, which {case.id} asks for")
        request, api = case.request, versions.installed()
        modules = load(self._folder, case.dtype, self._device, request.text_tokens)
        if any(block >= modules.blocks for block in request.stg_blocks):
            raise bad_field("request", "stg_blocks", request.stg_blocks, f"block indices below {modules.blocks}")
        text = _encode(modules, request, probe)
        noise = _noise(request, modules)
        sigmas = _sigmas(request)
        probe.tap("sigmas", sigmas)
        with record(modules, probe, text["neg"].video_encoding if "neg" in text else None):
            final = api.denoise(modules, request, text, noise, sigmas.to(self._device), DTYPES[case.dtype], probe)
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
            resolved=_resolved(case, noise, sigmas, probe) | {"weights": checkpoint.digests(self._folder)},
            ledger={
                "ltx_core": self._version,
                "text_attention": modules.text_encoder.model.config._attn_implementation,
            },
        )


def check_case(case: Case) -> None:
    """UnsupportedCase for what the packages' one-stage pipeline cannot do."""
    for field, value, able in (
        ("model", case.model, tuple(MODELS)),
        ("pipeline", case.pipeline, (PIPELINE,)),
        ("layout", case.layout.name, ("single",)),
        ("number of prompts", len(case.request.prompts), (1,)),
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


def _noise(request: Request, modules: Modules) -> dict[str, torch.Tensor]:
    """The harness's noise as packed tokens [1,T,C], float32, in memory as the packages draw theirs."""
    from ltx_core.components.patchifiers import AudioPatchifier, VideoLatentPatchifier
    from ltx_core.types import AudioLatentShape, VideoLatentShape

    shape = pixels(request)
    video = VideoLatentShape.from_pixel_shape(shape).to_torch_shape()
    audio = AudioLatentShape.from_video_pixel_shape(shape).to_torch_shape()
    unpacked = draw_noise(noise_generator(request.seed), tuple(video), tuple(audio))
    patchifiers = (VideoLatentPatchifier(patch_size=1), AudioPatchifier(patch_size=1))
    return {
        stream: patchifier.patchify(noise).contiguous()
        for stream, patchifier, noise in zip(STREAMS, patchifiers, unpacked, strict=True)
    }


def _sigmas(request: Request) -> torch.Tensor:
    """The packages' schedule, or the case's levels, with the final 0; float32 on the CPU."""
    if request.sigmas is not None:
        return torch.tensor([*request.sigmas, 0.0], dtype=torch.float32)
    from ltx_core.components.schedulers import LTX2Scheduler

    return LTX2Scheduler().execute(steps=request.steps).to(torch.float32)


def _resolved(case: Case, noise: dict[str, torch.Tensor], sigmas: torch.Tensor, probe: Probe) -> dict[str, Any]:
    request = case.request
    signs = [sign for sign in ("pos", "neg") if f"text/{sign}/embeds" in probe.trace]
    return {
        "height": request.height,
        "width": request.width,
        "num_frames": request.num_frames,
        "frame_rate": request.frame_rate,
        "steps": len(sigmas) - 1,
        "sigmas": sigmas.tolist(),
        "video_tokens": noise["video"].shape[1],
        "audio_tokens": noise["audio"].shape[1],
        "guidance": {"video": asdict(request.video_guidance), "audio": asdict(request.audio_guidance)},
        "stg_blocks": list(request.stg_blocks),
        "dtype": case.dtype,
        "noise": {stream: tensor_digest(state) for stream, state in noise.items()},
        "skip_v2a": False,
        "quantization": "none",
        "second_stage": None,
        "image": None,
        "embeds": {sign: probe.trace[f"text/{sign}/embeds"].sha256 for sign in signs},
        "batch": 1,
        "text_tokens": request.text_tokens,
    }
