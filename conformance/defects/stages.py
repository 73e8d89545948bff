"""Defects of the engine between stages, in what a stage is given, and in the res2s sampler.

What of it shows where: ``conformance.defects.registry``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from conformance.case import SecondStage
from conformance.defects.variants import variant, with_numerics
from engine import lora
from engine.loading import Loader
from engine.models.ltx2 import block, upsampler
from engine.models.ltx2.audio_vae.model import AudioVAE
from engine.models.ltx2.transformer import LTX2Transformer
from engine.models.ltx2.video_vae.model import VideoVAE
from engine.numerics import Numerics
from engine.pipelines import ltx2_stage, ltx2_starts
from engine.pipelines.ltx2_inputs import Latents
from engine.sampling import res2s

_cross_attention = block.Block._cross_attention
_adapted = Loader._adapted
_noisy_tokens = ltx2_starts.noisy_tokens
_noised = ltx2_starts.noised
_sample = res2s.sample


def _unmerged(module: LTX2Transformer, *rest: Any) -> LTX2Transformer:
    return module


def _one_strength(self: Loader, transformer: Any, second: SecondStage, numerics: Numerics) -> tuple[Any, Any]:
    then = _adapted(self, transformer, second, numerics)[1]
    return then, then


def _raw(vae: VideoVAE, latents_BCFHW: torch.Tensor) -> torch.Tensor:
    return latents_BCFHW


def _silent(vae: AudioVAE, audio_BTC: torch.Tensor, numerics: Numerics) -> torch.Tensor:
    return torch.zeros_like(audio_BTC)


def _full_level(latent: torch.Tensor, noise: torch.Tensor, level: float, *rest: Any) -> torch.Tensor:
    return _noised(latent, noise, 1.0, *rest)


def _held_fully(latents: Latents, strength: float, device: torch.device) -> torch.Tensor:
    return _noisy_tokens(latents, 1.0, device)


def _unblended(x_BTC: torch.Tensor, given: Any) -> torch.Tensor:
    return x_BTC


def _with_v2a(self: block.Block, video: Any, audio: Any, video_stream: Any, audio_stream: Any, skip: bool) -> Any:
    return _cross_attention(self, video, audio, video_stream, audio_stream, False)


def _as_it_was(middle: torch.Tensor, x0: torch.Tensor, anchor: torch.Tensor, weight: float) -> torch.Tensor:
    return anchor


def _first_order(h: float, phi: Any) -> res2s.Coefficients:
    return res2s.Coefficients(h=h, a21=0.5 * phi(1, -h * 0.5), b1=phi(1, -h), b2=0.0)


def _without_last(evaluate: res2s.Evaluate, state: res2s.States, sigmas: torch.Tensor, **rest: Any) -> Any:
    def shortened(step: int, half: int, now: res2s.States, sigma: torch.Tensor) -> Mapping[str, torch.Tensor]:
        return now if step == len(sigmas) - 1 else evaluate(step, half, now, sigma)

    return _sample(shortened, state, sigmas, **rest)


lora_dropped = variant("lora-dropped", (lora, "merged", _unmerged))
lora_one_strength = variant("lora-one-strength", (Loader, "_adapted", _one_strength))
upsampled_unnormalised = variant("upsampled-unnormalised", (upsampler, "normalise", _raw))
audio_not_handed_over = variant("audio-not-handed-over", (ltx2_starts, "handed_over", _silent))
second_stage_from_noise = variant("second-stage-from-noise", (ltx2_starts, "noised", _full_level))
first_stage_audio = with_numerics("first-stage-audio", audio_stage="first")
strength_ignored = variant("strength-ignored", (ltx2_starts, "noisy_tokens", _held_fully))
given_frame_unblended = variant(
    "given-frame-unblended", (ltx2_stage, "restore", _unblended), (res2s, "restore", _unblended)
)
v2a_not_skipped = variant("v2a-not-skipped", (block.Block, "_cross_attention", _with_v2a))
anchors_not_refined = variant("anchors-not-refined", (res2s, "refined", _as_it_was))
res2s_first_order = variant("res2s-first-order", (res2s, "_coefficients", _first_order))
res2s_streams_swapped = variant("res2s-streams-swapped", (res2s, "STREAMS", ("audio", "video")))
res2s_without_last = variant("res2s-without-last", (res2s, "sample", _without_last))
