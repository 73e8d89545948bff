"""Calls that are particular to ltx-core and ltx-pipelines 1.0.0: see ``versions.Version``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from conformance.case import Request
from conformance.generator import Probe
from reference_impl.official.arguments import guiders
from reference_impl.official.noise import InjectedNoise, InjectedStepNoise
from reference_impl.official.stages import HQ, ONE_STAGE, STREAMS, TWO_STAGE, Stage
from reference_impl.official.taps import ended, tapped

PIPELINES: tuple[str, ...] = (*ONE_STAGE, *TWO_STAGE, *HQ)
SKIPS_V2A = True
AUDIO_OF_FIRST_STAGE = False


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
    stage: Stage,
    request: Request,
    text: dict[str, Any],
    dtype: torch.dtype,
    probe: Probe,
    *,
    given: Sequence[Any] = (),
    initial: Mapping[str, torch.Tensor] | None = None,
) -> dict[str, Any]:
    from ltx_core.components.diffusion_steps import EulerDiffusionStep, Res2sDiffusionStep
    from ltx_pipelines.utils import denoise_audio_video
    from ltx_pipelines.utils.types import PipelineComponents

    denoise = tapped(_denoiser(modules.transformer, stage, request, text), probe, stage.second_order)
    sampler = _res2s(dtype) if stage.second_order else _euler()
    loop, packed = ended(partial(sampler, denoise_fn=denoise), probe)
    device = next(modules.transformer.parameters()).device
    sigmas = stage.sigmas.to(device)
    start = {} if initial is None else {"noise_scale": sigmas[0]}
    start |= {} if initial is None else {f"initial_{stream}_latent": initial[stream] for stream in STREAMS}
    with skipping_v2a(modules.transformer.velocity_model) if request.skip_v2a else contextlib.nullcontext():
        video, audio = denoise_audio_video(
            output_shape=stage.size,
            conditionings=list(given),
            noiser=InjectedNoise(stage.noise, probe, start=initial is not None),
            sigmas=sigmas,
            stepper=Res2sDiffusionStep() if stage.second_order else EulerDiffusionStep(),
            denoising_loop_fn=loop,
            components=PipelineComponents(dtype=dtype, device=device),
            dtype=dtype,
            device=device,
            **start,
        )
    return {"video": video.latent, "audio": audio.latent, "packed": packed}


def _denoiser(transformer: Any, stage: Stage, request: Request, text: dict[str, Any]) -> Any:
    from ltx_pipelines.utils import multi_modal_guider_denoising_func, simple_denoising_func

    contexts = text["pos"].video_encoding, text["pos"].audio_encoding
    if stage.guided:
        return multi_modal_guider_denoising_func(*guiders(request, text), *contexts, transformer)
    return simple_denoising_func(*contexts, transformer)


def _euler() -> Any:
    from ltx_pipelines.utils import euler_denoising_loop

    return euler_denoising_loop


def _res2s(dtype: torch.dtype) -> Any:
    """The packages' loop. They run it in bfloat16 alone: a case of another dtype has to say so."""
    from ltx_pipelines.utils import res2s_audio_video_denoising_loop, samplers

    noise = InjectedStepNoise(samplers._get_new_noise)
    return partial(res2s_audio_video_denoising_loop, new_noise_fn=noise, model_dtype=dtype)


@contextlib.contextmanager
def skipping_v2a(dit: nn.Module) -> Iterator[None]:
    """While open, every forward leaves out video-to-audio attention in all blocks, besides what else it leaves out."""
    from ltx_core.guidance.perturbations import (
        BatchedPerturbationConfig,
        Perturbation,
        PerturbationConfig,
        PerturbationType,
    )

    skip = Perturbation(type=PerturbationType.SKIP_V2A_CROSS_ATTN, blocks=None)

    def enter(module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        video, audio, perturbations = args
        batch = perturbations or BatchedPerturbationConfig.empty(video.latent.shape[0])
        both = [PerturbationConfig([*(each.perturbations or []), skip]) for each in batch.perturbations]
        return video, audio, BatchedPerturbationConfig(both)

    handle = dit.register_forward_pre_hook(enter)
    try:
        yield
    finally:
        handle.remove()


def fused(weights: Any, lora: Any, dtype: torch.dtype) -> Any:
    from ltx_core.loader import apply_loras

    return apply_loras(weights, [lora], dtype=dtype)


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
