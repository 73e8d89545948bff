"""Rounding and ordering decisions of the engine, as data. Model code reads these fields and decides nothing itself.

Two implementations of one model differ in such decisions. A preset names a whole set of them after the
implementation it reproduces; a single field flipped with ``dataclasses.replace`` attributes a difference.
"model" as a dtype stands for the compute dtype of the case.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any, Literal

from conformance.case import Case
from conformance.errors import bad_field

Dtype = Literal["float32", "model"]
Wide = Literal["float64", "float32"]
WideOrModel = Literal["float64", "model"]


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
    connector_batch: the connectors run once per prompt (``separate``), or once for both (``pair``).
    feature_rms_dtype: dtype in which LTX-2.3 normalises the text encoder's states.
    qk_norm: query and key norms round once, after the weight, or also before it (``rounded-twice``).
    block_norm: norms without a weight, before each layer of a block, are separate float32 operations (``composed``), or
        torch's operator (``fused``): one kernel, with another order of its sum, on CUDA.
    stg: a block that STG perturbs has the ``values`` in place of its self attention, or ``zeros``.
    autocast: the DiT runs as it is (``off``), or under torch's autocast to the ``model`` dtype, which computes norms
        and sums in float32. Nothing where that dtype is float32.
    attention: kernel of every attention in the DiT and the connectors, ``sdpa`` being torch's own choice
        (``engine.backends``). On CUDA ``flash`` and ``fa3`` take no mask: they want both masks ``none``.
    row_reduce_dtype: under tensor parallelism, linear layers whose input features are spread over ranks sum the ranks'
        products in float32 and round once, or round each product to the ``model`` dtype and sum in it.
    cfg_batch: ``pair`` runs [uncond; cond] as one batch, ``sequential`` runs cond, then uncond.
    token_memory: the packed video state is a strided ``view`` of the unpacked noise, channels slowest, or a
        contiguous ``copy``. A matrix product of a strided operand can take another path, with other last bits in bf16.
    latent_dtype: dtype of the state between steps.
    x0_dtype: dtype that each branch's x0 and the guided x0 are rounded to.
    velocity_dtype: dtype that the velocity of an Euler step is rounded to.
    velocity_divisor: the velocity of an Euler step is divided by its noise level as a ``tensor``, or as a Python
        ``number``, which CUDA multiplies by the reciprocal of.
    guider_dtype: dtype in which branches are combined and rescaled.
    av_timestep: the audio-video adaLN heads of a modality read the ``cross`` modality's noise level or their
        ``own`` timestep; or their scale and shift the own and their gate the other (``own-cross-gate``). Equal numbers
        while both modalities share one level.
    given_tokens: a given frame is put back after every step (``restored``), its x0 having been estimated at the step's
        noise level; or it has a noise level of its own, the mask's share of the step's, and its x0 is blended with the
        clean latents by the mask (``blended``).
    image_fit: a picture of another size is resized to the clip's, bilinearly with antialiasing, in bytes
        (``stretched``), or bilinearly until it covers the clip, in float32, then cut at the centre (``cropped``).
    image_normal_dtype: dtype in which the latents of a picture are normalised.
    noiser: noise is added by a sum whose weights are the noise level's share, every operation rounded to the dtype of
        the latents (``weighted``); by the same in float32, rounded once (``masked``); or by two float32 interpolations,
        to the noise and from the clean latents by the mask, rounded once (``lerp``).
    rescale: guidance rescale with the standard deviation of each sample and two products (``per-sample``), or
        of the whole tensor folded into one factor (``whole-tensor``).
    audio_denormal_dtype: dtype in which the statistics are applied to the final audio state before its decoder.
    frame_bytes: pixel values times 255 are ``rounded`` to the nearest byte, or ``truncated``.
    schedule_tokens: the schedule is shifted for the ``real`` number of video tokens, or for ``4096``.
    schedule_grid: noise levels before the shift: N values from 1 to 1/N in float64, rounded to float32
        (``float64``), or the first N of N+1 values from 1 to 0 in float32 (``float32``).
    schedule_shift: the shift divides by its denominator (``quotient``), or multiplies by the rounded ``reciprocal``.
    vocoder_dtype: dtype the bandwidth-extending vocoder (LTX-2.3) computes in, on weights of the model dtype, to
        which the waveform is rounded; the LTX-2 vocoder always computes in the model dtype.
    vocoder_clamp: the 16 kHz stage of that vocoder is ``free``, or ``clamped`` to [-1, 1].
    resampler_dtype: dtype the taps of that vocoder's resampling filter are made in, ``model`` being the one the
        vocoder computes in, to which they are then rounded.
    lora_delta_dtype: dtype in which a LoRA's product is computed, before it is rounded and added to the weights;
        ``bfloat16`` rounds the sum as well, of a float32 model, too.
    upsample_dtype: dtype in which the statistics are taken off the latents before they are upsampled.
    second_given_frame: the second stage holds the first frame of the ``upsampled`` latents, or the picture ``encoded``
        at its own size.
    audio_handoff: the second stage gets the first one's audio state as it is (``direct``), or after its statistics were
        applied and taken off again (``round-trip``).
    audio_stage: the audio of the ``second`` stage is decoded, or that of the ``first``.
    sde_noise_dtype: dtype of the noise that res2s injects, drawn in float64.
    sde_levels_dtype: dtype of the noise levels by which res2s mixes in the noise after a whole step.
    res2s_coefficients: dtype of the second-order coefficients.
    midpoint_dtype: the second evaluation of a res2s step and its x0 read the midpoint in this dtype.
    midpoint_level: dtype in which the noise level of that evaluation is multiplied to a timestep of every token.
    second_memory: the video state that a second stage starts from lies in memory as its ``noise`` does, or as the
        upsampled ``latents`` do, channels slowest.
    """

    rope_grid_dtype: Literal["float64", "float32"]
    rope_rounding: Literal["fp32-once", "product-rounded"]
    positions_dtype: Dtype
    timestep_shape: Literal["batch", "token"]
    text_mask: Literal["zeros", "none"]
    connector_mask: Literal["zeros", "none"]
    connector_batch: Literal["separate", "pair"]
    feature_rms_dtype: Dtype
    qk_norm: Literal["rounded-once", "rounded-twice"]
    block_norm: Literal["composed", "fused"]
    stg: Literal["values", "zeros"]
    autocast: Literal["off", "model"]
    attention: Literal["sdpa", "math", "flash", "efficient", "cudnn", "fa3"]
    row_reduce_dtype: Dtype
    cfg_batch: Literal["pair", "sequential"]
    token_memory: Literal["view", "copy"]
    latent_dtype: Dtype
    x0_dtype: Dtype
    velocity_dtype: Dtype
    velocity_divisor: Literal["tensor", "number"]
    guider_dtype: Dtype
    av_timestep: Literal["cross", "own", "own-cross-gate"]
    given_tokens: Literal["restored", "blended"]
    image_fit: Literal["stretched", "cropped"]
    image_normal_dtype: Dtype
    noiser: Literal["weighted", "masked", "lerp"]
    rescale: Literal["per-sample", "whole-tensor"]
    audio_denormal_dtype: Dtype
    frame_bytes: Literal["rounded", "truncated"]
    schedule_tokens: Literal["real", "4096"]
    schedule_grid: Literal["float64", "float32"]
    schedule_shift: Literal["quotient", "reciprocal"]
    vocoder_dtype: Dtype
    vocoder_clamp: Literal["free", "clamped"]
    resampler_dtype: Dtype
    lora_delta_dtype: Literal["float32", "model", "bfloat16"]
    upsample_dtype: Dtype
    second_given_frame: Literal["upsampled", "encoded"]
    audio_handoff: Literal["direct", "round-trip"]
    audio_stage: Literal["first", "second"]
    sde_noise_dtype: WideOrModel
    sde_levels_dtype: Wide
    res2s_coefficients: Wide
    midpoint_dtype: WideOrModel
    midpoint_level: Wide
    second_memory: Literal["noise", "latents"]

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
            connector_batch="pair",
            feature_rms_dtype="model",
            qk_norm="rounded-once",
            block_norm="composed",
            stg="values",
            autocast="off",
            attention="sdpa",
            row_reduce_dtype="float32",
            cfg_batch="pair",
            token_memory="view",
            latent_dtype="float32",
            x0_dtype="float32",
            velocity_dtype="float32",
            velocity_divisor="tensor",
            guider_dtype="float32",
            av_timestep="cross",
            given_tokens="restored",
            image_fit="stretched",
            image_normal_dtype="float32",
            noiser="weighted",
            rescale="per-sample",
            audio_denormal_dtype="float32",
            frame_bytes="rounded",
            schedule_tokens="real",
            schedule_grid="float64",
            schedule_shift="quotient",
            vocoder_dtype="model",
            vocoder_clamp="free",
            resampler_dtype="model",
            lora_delta_dtype="float32",
            upsample_dtype="float32",
            second_given_frame="upsampled",
            audio_handoff="round-trip",
            audio_stage="second",
            sde_noise_dtype="float64",
            sde_levels_dtype="float32",
            res2s_coefficients="float64",
            midpoint_dtype="model",
            midpoint_level="float32",
            second_memory="noise",
        )

    @classmethod
    def official_1_0_0(cls) -> Numerics:
        """What ``ltx-core`` and ``ltx-pipelines`` 1.0.0 (2026-03) do; the rest as diffusers."""
        return replace(
            cls.diffusers(),
            rope_rounding="product-rounded",
            positions_dtype="model",
            timestep_shape="token",
            text_mask="none",
            connector_batch="separate",
            block_norm="fused",
            cfg_batch="sequential",
            token_memory="copy",
            latent_dtype="model",
            x0_dtype="model",
            velocity_dtype="model",
            velocity_divisor="number",
            guider_dtype="model",
            given_tokens="blended",
            image_fit="cropped",
            image_normal_dtype="model",
            noiser="masked",
            rescale="whole-tensor",
            audio_denormal_dtype="model",
            frame_bytes="truncated",
            schedule_tokens="4096",
            schedule_grid="float32",
            schedule_shift="reciprocal",
            vocoder_clamp="clamped",
            resampler_dtype="float32",
            lora_delta_dtype="model",
            upsample_dtype="model",
            second_given_frame="encoded",
            audio_handoff="direct",
        )

    @classmethod
    def official_1_2_0(cls) -> Numerics:
        """What ``ltx-core`` and ``ltx-pipelines`` 1.2.0 (2026-08) do; the rest as 1.0.0."""
        return replace(
            cls.official_1_0_0(),
            positions_dtype="float32",
            guider_dtype="float32",
            av_timestep="own-cross-gate",
            noiser="lerp",
            vocoder_dtype="float32",
            audio_stage="first",
            lora_delta_dtype="bfloat16",
            midpoint_level="float64",
            second_memory="latents",
        )


PRESETS: dict[str, Callable[[], Numerics]] = {
    "diffusers": Numerics.diffusers,
    "official-1.0.0": Numerics.official_1_0_0,
    "official-1.2.0": Numerics.official_1_2_0,
}


@cache
def choices() -> dict[str, tuple[str, ...]]:
    """The implemented values of every field of ``Numerics``, by field name."""
    return {name: typing.get_args(hint) for name, hint in typing.get_type_hints(Numerics).items()}


def preset(name: str) -> Numerics:
    """The preset called ``name``. InputError names the known ones."""
    if name not in PRESETS:
        raise bad_field("numerics", "preset", name, f"one of {sorted(PRESETS)}")
    return PRESETS[name]()


def resolve(case: Case) -> Numerics:
    """The preset of a case with its overrides. InputError names an unknown preset, field or value."""
    known = choices()
    for override in case.overrides:
        if override.field not in known:
            raise bad_field("numerics", "override", override.field, f"one of the fields {sorted(known)}")
    changes: dict[str, Any] = {override.field: override.value for override in case.overrides}
    return replace(preset(case.numerics), **changes)
