"""Rounding and ordering decisions of the engine, as data. Model code reads these fields and decides nothing itself.

Two implementations of one model differ in such decisions. A preset names a whole set of them after the
implementation it reproduces; a single field flipped with ``dataclasses.replace`` attributes a difference.
"model" as a dtype stands for the compute dtype of the case.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal

from conformance.errors import bad_field

Dtype = Literal["float32", "model"]


@dataclass(frozen=True, kw_only=True)
class Numerics:
    """One field per decision. InputError when a field has a value that is not implemented.

    rope_grid_dtype: dtype of the rotary frequency grid, made on the target device, then rounded to float32.
    rope_rounding: ``fp32-once`` rotates in float32 and rounds the result once; ``product-rounded`` rounds cos,
        sin and the cosine product to the model dtype, adds the sine product in float32 and rounds again.
    positions_dtype: dtype of the video token bounds and of their middles as fractions of the maxima, every operation
        rounded; those of audio are always float32.
    timestep_shape: timesteps enter the adaLN heads once per ``batch`` entry or once per ``token``. Both give the
        same numbers up to the summation order of a matrix product with another row count.
    text_mask: text cross attention of the DiT gets an additive mask of ``zeros``, or ``none``. Every position is
        valid after the connectors; the choice selects the attention kernel.
    connector_mask: the same for self attention in the connectors, where registers have taken the place of pads.
    attention: kernel of every attention in the DiT and the connectors, ``sdpa`` being torch's own choice
        (``engine.backends``). On CUDA ``flash`` and ``fa3`` take no mask: they want both masks ``none``.
    cfg_batch: ``pair`` runs [uncond; cond] as one batch, ``sequential`` runs cond, then uncond.
    token_memory: the packed video state is a strided ``view`` of the unpacked noise, channels slowest, or a
        contiguous ``copy``. A matrix product of a strided operand can take another path, with other last bits in bf16.
    latent_dtype: dtype of the state, of each branch's x0, of the guided x0 and of the Euler velocity.
    guider_dtype: dtype in which branches are combined and rescaled.
    av_timestep: the audio-video adaLN heads of a modality read the ``cross`` modality's noise level or their
        ``own`` timestep. Equal numbers while both modalities share one level.
    rescale: guidance rescale with the standard deviation of each sample and two products (``per-sample``), or
        of the whole tensor folded into one factor (``whole-tensor``).
    audio_denormal_dtype: dtype in which the statistics are applied to the final audio state before its decoder.
    frame_bytes: pixel values times 255 are ``rounded`` to the nearest byte, or ``truncated``.
    schedule_tokens: the schedule is shifted for the ``real`` number of video tokens, or for ``4096``.
    schedule_grid: noise levels before the shift: N values from 1 to 1/N in float64, rounded to float32
        (``float64``), or the first N of N+1 values from 1 to 0 in float32 (``float32``).
    schedule_shift: the shift divides by its denominator (``quotient``), or multiplies by the rounded ``reciprocal``.
    vocoder_dtype: dtype the bandwidth-extending vocoder (LTX-2.3) computes in, on weights of the model dtype; the
        LTX-2 vocoder always computes in the model dtype.
    resampler_dtype: dtype the taps of that vocoder's resampling filter are made in, ``model`` being the one the
        vocoder computes in, to which they are then rounded.
    """

    rope_grid_dtype: Literal["float64", "float32"]
    rope_rounding: Literal["fp32-once", "product-rounded"]
    positions_dtype: Dtype
    timestep_shape: Literal["batch", "token"]
    text_mask: Literal["zeros", "none"]
    connector_mask: Literal["zeros", "none"]
    attention: Literal["sdpa", "math", "flash", "efficient", "cudnn", "fa3"]
    cfg_batch: Literal["pair", "sequential"]
    token_memory: Literal["view", "copy"]
    latent_dtype: Dtype
    guider_dtype: Dtype
    av_timestep: Literal["cross", "own"]
    rescale: Literal["per-sample", "whole-tensor"]
    audio_denormal_dtype: Dtype
    frame_bytes: Literal["rounded", "truncated"]
    schedule_tokens: Literal["real", "4096"]
    schedule_grid: Literal["float64", "float32"]
    schedule_shift: Literal["quotient", "reciprocal"]
    vocoder_dtype: Dtype
    resampler_dtype: Dtype

    def __post_init__(self) -> None:
        allowed = choices()
        for field in fields(self):
            if getattr(self, field.name) not in allowed[field.name]:
                raise bad_field("numerics", field.name, getattr(self, field.name), f"one of {allowed[field.name]}")

    @classmethod
    def diffusers(cls) -> Numerics:
        """What ``LTX2Pipeline`` of diffusers 0.42 does."""
        return cls(
            rope_grid_dtype="float64",
            rope_rounding="fp32-once",
            positions_dtype="float32",
            timestep_shape="batch",
            text_mask="zeros",
            connector_mask="zeros",
            attention="sdpa",
            cfg_batch="pair",
            token_memory="view",
            latent_dtype="float32",
            guider_dtype="float32",
            av_timestep="cross",
            rescale="per-sample",
            audio_denormal_dtype="float32",
            frame_bytes="rounded",
            schedule_tokens="real",
            schedule_grid="float64",
            schedule_shift="quotient",
            vocoder_dtype="model",
            resampler_dtype="model",
        )

    @classmethod
    def official_1_0_0(cls) -> Numerics:
        """What ``ltx-core`` and ``ltx-pipelines`` 1.0.0 (2026-03) do."""
        return cls(
            rope_grid_dtype="float64",
            rope_rounding="product-rounded",
            positions_dtype="model",
            timestep_shape="token",
            text_mask="none",
            connector_mask="zeros",
            attention="sdpa",
            cfg_batch="sequential",
            token_memory="copy",
            latent_dtype="model",
            guider_dtype="model",
            av_timestep="cross",
            rescale="whole-tensor",
            audio_denormal_dtype="model",
            frame_bytes="truncated",
            schedule_tokens="4096",
            schedule_grid="float32",
            schedule_shift="reciprocal",
            vocoder_dtype="model",
            resampler_dtype="float32",
        )


PRESETS: dict[str, Callable[[], Numerics]] = {
    "diffusers": Numerics.diffusers,
    "official-1.0.0": Numerics.official_1_0_0,
}


def choices() -> dict[str, tuple[str, ...]]:
    """The implemented values of every field of ``Numerics``, by field name."""
    return {name: typing.get_args(hint) for name, hint in typing.get_type_hints(Numerics).items()}


def preset(name: str) -> Numerics:
    """The preset called ``name``. InputError names the known ones."""
    if name not in PRESETS:
        raise bad_field("numerics", "preset", name, f"one of {sorted(PRESETS)}")
    return PRESETS[name]()
