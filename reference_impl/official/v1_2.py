"""Calls that are particular to ltx-core and ltx-pipelines 1.2.0: see ``versions.Version``."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
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
SKIPS_V2A = False
AUDIO_OF_FIRST_STAGE = True


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
    from ltx_core.components.diffusion_steps import EulerDiffusionStep, Res2sDiffusionStep
    from ltx_pipelines.utils.blocks import DiffusionStage
    from ltx_pipelines.utils.types import ModalitySpec

    contexts = {stream: getattr(text["pos"], f"{stream}_encoding") for stream in STREAMS}
    denoiser = tapped(
        _denoiser(stage, request, text, contexts), probe, stage.second_order, lambda result: result.denoised
    )
    loop, packed = ended(_res2s(dtype) if stage.second_order else _euler(), probe)
    size, dit = stage.size, modules.transformer.velocity_model
    device, weights = next(dit.parameters()).device, dit.state_dict()
    sigmas = stage.sigmas.to(device)
    start: dict[str, dict[str, Any]] = {stream: {} for stream in STREAMS}
    for stream, latent in (initial or {}).items():
        start[stream] = {"initial_latent": latent, "noise_scale": sigmas[0].item()}
    video, audio = DiffusionStage(_Loaded(dit), dtype, device)(
        denoiser=denoiser,
        sigmas=sigmas,
        noiser=InjectedNoise(stage.noise, probe, start=initial is not None),
        width=size.width,
        height=size.height,
        frames=size.frames,
        fps=size.fps,
        video=ModalitySpec(context=contexts["video"], conditionings=list(given), **start["video"]),
        audio=ModalitySpec(context=contexts["audio"], **start["audio"]),
        stepper=Res2sDiffusionStep() if stage.second_order else EulerDiffusionStep(),
        loop=loop,
        max_batch_size=1,  # the pipelines' default: one branch after the other
    )
    dit.load_state_dict(weights, assign=True)  # the stage empties the model that it is done with
    return {"video": video.latent, "audio": audio.latent, "packed": packed}


def _denoiser(stage: Stage, request: Request, text: dict[str, Any], contexts: dict[str, torch.Tensor]) -> Any:
    from ltx_pipelines.utils.denoisers import GuidedDenoiser, SimpleDenoiser

    if stage.guided:
        return GuidedDenoiser(*contexts.values(), *guiders(request, text))
    return SimpleDenoiser(*contexts.values())


def _euler() -> Any:
    from ltx_pipelines.utils.samplers import euler_denoising_loop

    return euler_denoising_loop


def _res2s(dtype: torch.dtype) -> Any:
    """The packages' loop. They run it in bfloat16 alone: a case of another dtype has to say so."""
    from ltx_pipelines.utils import samplers

    noise = InjectedStepNoise(samplers._get_new_noise)
    return partial(samplers.res2s_audio_video_denoising_loop, new_noise_fn=noise, model_dtype=dtype)


def fused(weights: Any, lora: Any, dtype: torch.dtype) -> Any:
    """The builder casts the sum, which has the stored dtype of the weight, when it loads it."""
    from ltx_core.loader.fuse_loras import apply_loras

    return apply_loras(weights, [lora])


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
