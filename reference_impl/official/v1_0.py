"""Calls that are particular to ltx-core and ltx-pipelines 1.0.0: see ``versions.Version``."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import torch
from torch import nn

from conformance.case import Request
from conformance.generator import Probe
from reference_impl.official.arguments import guiders, pixels
from reference_impl.official.taps import STREAMS, InjectedNoise, TappedStep


def configured(configurator: Any, config: dict[str, Any]) -> Any:
    return configurator.from_config(config)


def text_encoder(gemma: nn.Module, tokenizer: Path, text_tokens: int, dtype: torch.dtype) -> Any:
    from ltx_core.text_encoders.gemma.encoders.base_encoder import GemmaTextEncoder
    from ltx_core.text_encoders.gemma.tokenizer import LTXVGemmaTokenizer

    return GemmaTextEncoder(gemma, LTXVGemmaTokenizer(str(tokenizer), text_tokens), dtype=dtype)


def encode(encoder: Any, prompts: list[str]) -> list[Any]:
    return [encoder.encode(prompt) for prompt in prompts]


def denoise(
    modules: Any,
    request: Request,
    text: dict[str, Any],
    noise: dict[str, torch.Tensor],
    sigmas: torch.Tensor,
    dtype: torch.dtype,
    probe: Probe,
) -> dict[str, Any]:
    from ltx_core.components.diffusion_steps import EulerDiffusionStep
    from ltx_pipelines.utils import denoise_audio_video, euler_denoising_loop, multi_modal_guider_denoising_func
    from ltx_pipelines.utils.types import PipelineComponents

    denoise = multi_modal_guider_denoising_func(
        *guiders(request, text),
        text["pos"].video_encoding,
        text["pos"].audio_encoding,
        modules.transformer,
    )
    packed: dict[str, torch.Tensor] = {}

    def loop(*arguments: Any) -> Any:
        with contextlib.redirect_stderr(io.StringIO()):  # a progress bar
            states = euler_denoising_loop(*arguments, denoise_fn=denoise)
        packed.update({stream: state.latent for stream, state in zip(STREAMS, states, strict=True)})
        for stream in STREAMS:
            probe.tap(f"latents/final/{stream}", packed[stream])
        return states

    device = sigmas.device
    video, audio = denoise_audio_video(
        output_shape=pixels(request),
        conditionings=[],
        noiser=InjectedNoise(noise, probe),
        sigmas=sigmas,
        stepper=TappedStep(EulerDiffusionStep(), probe),
        denoising_loop_fn=loop,
        components=PipelineComponents(dtype=dtype, device=device),
        dtype=dtype,
        device=device,
    )
    return {"video": video.latent, "audio": audio.latent, "packed": packed}


def decode_video(latent: torch.Tensor, decoder: Any) -> tuple[torch.Tensor, torch.Tensor]:
    from ltx_core.model.video_vae import decode_video

    decoded: list[torch.Tensor] = []
    handle = decoder.register_forward_hook(lambda module, args, output: decoded.append(output))
    try:
        frames = torch.cat(list(decode_video(latent, decoder)))
    finally:
        handle.remove()
    (pixels_BCFHW,) = decoded
    floats = ((pixels_BCFHW + 1.0) / 2.0).clamp(0.0, 1.0).permute(0, 2, 3, 4, 1)
    return frames, floats


def decode_audio(latent: torch.Tensor, decoder: Any, vocoder: Any) -> Any:
    from ltx_core.model.audio_vae import decode_audio

    return decode_audio(latent, decoder, vocoder)
