"""The engine as a Generator of the conformance harness."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from conformance import checkpoint as checkpoints
from conformance.case import Case, Request
from conformance.errors import InputError, UnsupportedCase, bad_field
from conformance.generator import Probe, Sample, tensor_digest
from conformance.inputs import draw_noise, noise_generator, read_picture
from engine import components, image, numerics, picks
from engine.frames import to_bytes
from engine.models.ltx2 import weights
from engine.models.ltx2.config import ConnectorsConfig, TransformerConfig
from engine.models.ltx2.connectors import LTX2Connectors
from engine.models.ltx2.transformer import LTX2Transformer
from engine.pipelines import ltx2_one_stage as one_stage
from engine.sampling import guidance
from engine.sampling.schedule import ScheduleConfig, given, schedule

PIPELINES = ("one-stage-t2v", "one-stage-ti2v")
MODELS = ("ltx-2", "ltx-2.3")
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class _Loaded:
    """Everything of a checkpoint in one dtype."""

    transformer: LTX2Transformer
    connectors: LTX2Connectors
    parts: components.Components


class Engine:
    """Generates LTX-2 and LTX-2.3 cases on one device from a checkpoint folder in the diffusers layout."""

    name = "engine"

    def __init__(self, checkpoint: Path, device: str) -> None:
        self._folder, self._device = checkpoint, torch.device(device)
        self._loaded: dict[torch.dtype, _Loaded] = {}

    def _load(self, dtype: torch.dtype) -> _Loaded:
        """The checkpoint in ``dtype``; another dtype loaded before is dropped first."""
        if dtype not in self._loaded:
            self._loaded.clear()
            transformer, connectors = self._folder / "transformer", self._folder / "connectors"
            build = partial(LTX2Transformer, TransformerConfig.load(transformer))
            build_connectors = partial(LTX2Connectors, ConnectorsConfig.load(connectors))
            self._loaded[dtype] = _Loaded(
                transformer=weights.load(build, transformer, dtype, self._device),
                connectors=weights.load(build_connectors, connectors, dtype, self._device),
                parts=components.load(self._folder, dtype, self._device),
            )
        return self._loaded[dtype]

    @torch.inference_mode()
    def generate(self, case: Case, probe: Probe) -> Sample:
        """Produce the case.

        UnsupportedCase for a layout, model or pipeline the engine does not have; InputError for a checkpoint or
        request that cannot be used.
        """
        _check_supported(case)
        with picks.scope(kernels=case.kernels == "on") as picked:
            sample = self._generate(case, probe)
        sample.ledger["kernel"] = picked.ledger()
        return sample

    def _generate(self, case: Case, probe: Probe) -> Sample:
        request, rounding = case.request, numerics.resolve(case)
        loaded = self._load(_DTYPES[case.dtype])
        config, parts = loaded.transformer.config, loaded.parts
        if config.model != case.model:
            raise bad_field(str(self._folder), "transformer", config.model, f"{case.model!r}, as the case says")
        one_stage.check_guidance(loaded.transformer, request)
        texts = {"pos": request.prompts}
        if guidance.uses_cfg(request):
            texts["neg"] = request.negative_prompts
        states = {name: components.encode(parts, prompts, request.text_tokens) for name, prompts in texts.items()}
        text = one_stage.contexts(loaded.connectors, states, rounding, probe)
        sizes = components.latent_sizes(
            parts,
            config.in_channels,
            len(request.prompts),
            height=request.height,
            width=request.width,
            num_frames=request.num_frames,
            frame_rate=request.frame_rate,
        )
        noise = one_stage.pack_noise(
            *draw_noise(noise_generator(request.seed), sizes.video, sizes.audio), rounding, probe
        )
        tokens = {stream: state.shape[1] for stream, state in noise.items()}
        if request.sigmas is None:
            curve = ScheduleConfig.load(self._folder / "scheduler")
            sigmas = schedule(request.steps, tokens["video"], curve, rounding)
        else:
            sigmas = given(request.sigmas)
        pixels = self._pixels(request, parts, probe)
        first = None if pixels is None else components.encode_image(parts, pixels)
        if first is not None:
            probe.tap(
                "image/latents", first.flatten(2).transpose(1, 2).expand(len(request.prompts), -1, -1).flatten(0, 1)
            )
        final = one_stage.sample(
            loaded.transformer,
            request,
            rounding,
            text=text,
            noise=noise,
            sigmas=sigmas,
            latents=sizes,
            probe=probe,
            first_BCFHW=first,
        )
        frames, waveform = self._decode(parts, final, sizes, rounding, probe)
        return Sample(
            frames=to_bytes(frames, rounding),
            frames_float=frames,
            audio=waveform,
            audio_rate=parts.audio_rate,
            latents={stream: state.cpu() for stream, state in final.items()},
            trace=probe.trace,
            tensors=probe.tensors,
            resolved=self._resolved(case, tokens, sigmas, noise, states, pixels),
            ledger=_ledger(self._device, rounding),
        )

    def _pixels(self, request: Request, parts: components.Components, probe: Probe) -> torch.Tensor | None:
        """The given first frame as the video VAE takes it, or None."""
        if request.image is None:
            return None
        picture = read_picture(request.image)
        pixels = image.to_model(image.through_h264(picture, request.image.crf), parts.vae.dtype, self._device)
        probe.tap("image/pixels", pixels)
        return pixels

    def _decode(
        self,
        parts: components.Components,
        final: Mapping[str, torch.Tensor],
        sizes: one_stage.Latents,
        rounding: numerics.Numerics,
        probe: Probe,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Frames in [0,1] as float32 [B,F,H,W,3] and waveform as float32 [B,C,N]."""
        video, audio = components.decoder_inputs(parts, final["video"], final["audio"], sizes, rounding)
        probe.tap("latents/decode/video", video)
        probe.tap("latents/decode/audio", audio)
        frames_BCFHW, waveform = components.decode(parts, video, audio, rounding)
        probe.tap("vae/frames", frames_BCFHW)
        probe.tap("audio/waveform", waveform)
        shown = (frames_BCFHW * 0.5 + 0.5).clamp(0, 1).permute(0, 2, 3, 4, 1)
        return shown.float().cpu().numpy(), waveform.float().cpu().numpy()

    def _resolved(
        self,
        case: Case,
        tokens: Mapping[str, int],
        sigmas: torch.Tensor,
        noise: Mapping[str, torch.Tensor],
        states: Mapping[str, one_stage.TextStates],
        pixels: torch.Tensor | None,
    ) -> dict[str, Any]:
        request = case.request
        return {
            "height": request.height,
            "width": request.width,
            "num_frames": request.num_frames,
            "frame_rate": request.frame_rate,
            "steps": request.steps,
            "sigmas": sigmas.tolist(),
            "video_tokens": tokens["video"],
            "audio_tokens": tokens["audio"],
            "guidance": {"video": asdict(request.video_guidance), "audio": asdict(request.audio_guidance)},
            "stg_blocks": list(request.stg_blocks),
            "dtype": case.dtype,
            "skip_v2a": request.skip_v2a,
            "quantization": "none",
            "second_stage": None,
            "image": None if pixels is None else tensor_digest(pixels),
            "noise": {stream: tensor_digest(state) for stream, state in noise.items()},
            "embeds": {name: tensor_digest(text.embeds) for name, text in states.items() if text.embeds is not None},
            "weights": checkpoints.digests(self._folder),
            "batch": len(request.prompts),
            "text_tokens": request.text_tokens,
            "prompt_tokens": {
                name: text.mask.sum(-1).tolist() for name, text in states.items() if text.mask is not None
            },
        }


def _check_supported(case: Case) -> None:
    for name, value, known in (
        ("layout", case.layout.name, ("single",)),
        ("pipeline", case.pipeline, PIPELINES),
        ("model", case.model, MODELS),
    ):
        if value not in known:
            raise UnsupportedCase(f"engine: {name!r} is {value!r}; the engine has {known}")


def _ledger(device: torch.device, rounding: numerics.Numerics) -> dict[str, Any]:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {"device": str(device), "device_name": name, "torch": torch.__version__, "numerics": asdict(rounding)}


def build(checkpoint: Path, device: str) -> Engine:
    """The engine on ``device`` ("cpu", "cuda", "cuda:1"); models are loaded by the first case.

    InputError when the folder does not exist or the device cannot be used.
    """
    if not checkpoint.is_dir():
        raise InputError(f"{checkpoint}: no such folder; expected a checkpoint in the diffusers layout")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise bad_field("engine", "device", device, f"a usable device ({str(error).splitlines()[0]})") from None
    return Engine(checkpoint, device)
