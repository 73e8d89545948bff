"""Calls that are particular to ltx-core and ltx-pipelines 1.2.0: see ``versions.Version``."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from conformance.case import Request
from conformance.generator import Probe
from reference_impl.official.arguments import guiders
from reference_impl.official.noise import InjectedNoise
from reference_impl.official.stages import STREAMS, Stage
from reference_impl.official.taps import TappedStep

PIPELINES: tuple[str, ...] = ("one-stage-t2v",)
SKIPS_V2A = False


def configured(configurator: Any, config: dict[str, Any]) -> Any:
    return configurator.from_metadata({"config": config})


def text_encoder(gemma: nn.Module, tokenizer: Path, text_tokens: int, dtype: torch.dtype) -> Any:
    from ltx_core.text_encoders.gemma import LTXGemmaTextEncoder
    from ltx_core.text_encoders.gemma.tokenizer import LTXGemmaTokenizer
    from transformers import AutoTokenizer

    words = AutoTokenizer.from_pretrained(tokenizer, local_files_only=True)
    return LTXGemmaTextEncoder(gemma, LTXGemmaTokenizer(words, text_tokens), dtype=dtype)


def encode(encoder: Any, prompts: list[str]) -> list[Any]:
    return list(encoder.encode(prompts))


class _Loaded:
    """The transformer that is there already, where ``DiffusionStage`` expects what builds one from a file."""

    checkpoint, model_sd_ops, module_ops, loras = "memory", None, (), ()

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    def model_config(self) -> dict[str, Any]:
        return {}

    def build(self, **_: Any) -> nn.Module:
        return self._model

    def _same(self, ops: Any) -> _Loaded:
        if ops:
            raise RuntimeError(f"the packages want to change a loaded transformer: {ops}")
        return self

    with_module_ops = with_sd_ops = with_loras = _same


def denoise(
    modules: Any,
    stage: Stage,
    request: Request,
    text: dict[str, Any],
    dtype: torch.dtype,
    probe: Probe,
    *,
    given: Sequence[Any] = (),
    initial: Mapping[str, torch.Tensor] | None = None,
) -> dict[str, Any]:
    """The stage empties the transformer when it is done: ``modules`` run once."""
    from ltx_core.components.diffusion_steps import EulerDiffusionStep
    from ltx_pipelines.utils.blocks import DiffusionStage
    from ltx_pipelines.utils.denoisers import GuidedDenoiser
    from ltx_pipelines.utils.samplers import euler_denoising_loop
    from ltx_pipelines.utils.types import ModalitySpec

    packed: dict[str, torch.Tensor] = {}

    def loop(**arguments: Any) -> Any:
        with contextlib.redirect_stderr(io.StringIO()):  # a progress bar
            states = euler_denoising_loop(**arguments)
        packed.update({stream: state.latent for stream, state in zip(STREAMS, states, strict=True)})
        for stream in STREAMS:
            probe.tap(f"latents/final/{stream}", packed[stream])
        return states

    contexts = {stream: getattr(text["pos"], f"{stream}_encoding") for stream in STREAMS}
    size, device = stage.size, next(modules.transformer.parameters()).device
    video, audio = DiffusionStage(_Loaded(modules.transformer.velocity_model), dtype, device)(
        denoiser=GuidedDenoiser(*contexts.values(), *guiders(request, text)),
        sigmas=stage.sigmas.to(device),
        noiser=InjectedNoise(stage.noise, probe),
        width=size.width,
        height=size.height,
        frames=size.frames,
        fps=size.fps,
        video=ModalitySpec(context=contexts["video"]),
        audio=ModalitySpec(context=contexts["audio"]),
        stepper=TappedStep(EulerDiffusionStep(), probe),
        loop=loop,
        max_batch_size=1,  # the pipelines' default: one branch after the other
    )
    return {"video": video.latent, "audio": audio.latent, "packed": packed}


def decode_video(latent: torch.Tensor, decoder: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """The plain decoder. Bytes as ``FrameConverter.RGB24`` makes them; the pipelines encode YUV 4:2:0 of the values."""
    from ltx_core.color.yuv import FrameConverter

    floats_FHWC = torch.cat(list(decoder.decode_video(latent, None)))
    frames = FrameConverter.RGB24(floats_FHWC.clone().movedim(-1, -3))  # works in place
    return frames, floats_FHWC[None]


def decode_audio(latent: torch.Tensor, decoder: Any, vocoder: Any) -> Any:
    """The extending vocoder asks for an autocast to float32, which a CPU does not have: its weights are cast instead,
    as the packages do on MPS.
    """
    from ltx_core.model.audio_vae import decode_audio
    from ltx_core.model.audio_vae.vocoder import VocoderWithBWE

    if isinstance(vocoder, VocoderWithBWE) and latent.device.type == "cpu":
        vocoder.float()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "In CPU autocast")
        return decode_audio(latent, decoder, vocoder)
