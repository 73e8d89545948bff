"""LTX-2 and LTX-2.3, one-stage, from text and from text and image, on the checkpoints the project builds.

Sizes are small in tokens, not in structure: every guidance branch, both modalities, token counts that divide by
8 and 16 and counts that do not, two seeds, two batch sizes, three frame rates. Noise levels are written into
the case (so that a schedule cannot hide behind the model) but for one case a model, where each side builds its own.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import replace

from conformance.case import Case, Guidance, ImageCondition, Layout, Request

MODELS = ("ltx-2", "ltx-2.3")
OFF = Guidance(cfg=1.0, stg=0.0, modality=1.0, rescale=0.0)
NEGATIVE = "worst quality, inconsistent motion, blurry, jittery, distorted"
RACCOON = "A curious raccoon peers out of a hollow log; rain drums on the leaves."
HARBOUR = "Fog over a harbour at dawn."


def _fp32(value: float) -> float:
    return float(struct.unpack("f", struct.pack("f", value))[0])


def sigmas(steps: int, tokens: int) -> tuple[float, ...]:
    """The LTX-2 noise levels: linear, shifted by the token count, stretched so that the last is 0.1 (fp32 values)."""
    slope = (2.05 - 0.95) / (4096 - 1024)
    shift = math.exp(0.95 + slope * (tokens - 1024))
    shifted = [shift / (shift + 1.0 / (1.0 - i / steps) - 1.0) for i in range(steps)]
    scale = (1.0 - shifted[-1]) / 0.9
    return tuple(_fp32(1.0 - (1.0 - s) / scale) for s in shifted)


def _base() -> Request:
    return Request(
        prompts=(RACCOON,),
        negative_prompts=(NEGATIVE,),
        height=128,
        width=192,
        num_frames=17,
        frame_rate=24.0,
        steps=4,
        sigmas=sigmas(4, 4096),
        seed=10,
        text_tokens=96,
        video_guidance=OFF,
        audio_guidance=OFF,
        stg_blocks=(),
        skip_v2a=False,
        image=None,
        second=None,
    )


def _cfg(request: Request) -> Request:
    return replace(
        request, video_guidance=replace(OFF, cfg=3.0, rescale=0.7), audio_guidance=replace(OFF, cfg=7.0, rescale=0.7)
    )


def _all_guidance(request: Request) -> Request:
    """CFG, STG, modality isolation and rescale, with the released models' scales."""
    return replace(
        request,
        video_guidance=Guidance(cfg=3.0, stg=1.0, modality=3.0, rescale=0.7),
        audio_guidance=Guidance(cfg=7.0, stg=1.0, modality=3.0, rescale=0.7),
        stg_blocks=(1,),
    )


def _picture(name: str, height: int, width: int, *, crf: int) -> ImageCondition:
    return ImageCondition(picture=name, height=height, width=width, crf=crf, strength=1.0)


def _image_variants() -> Iterator[tuple[str, Request]]:
    """Image-conditioned: the first frame is given, clean and encoded as in training."""
    base = replace(_base(), num_frames=9, image=_picture("blocks", 128, 192, crf=0))
    yield "unguided", base
    yield "all-guidance", _all_guidance(base)
    yield (
        "cfg-crf33-odd",
        replace(_cfg(base), height=96, width=160, num_frames=17, image=_picture("rings", 96, 160, crf=33)),
    )


def _variants() -> Iterator[tuple[str, Request]]:
    base = _base()
    yield "unguided", base
    yield "cfg", _cfg(base)
    yield "all-guidance", _all_guidance(base)
    # 3 x 3 x 5 = 45 video tokens and 17 audio tokens: multiples of neither 8 nor 16
    yield "all-guidance-odd", replace(_all_guidance(base), height=96, width=160, frame_rate=25.0)
    yield (
        "cfg-batch2",
        replace(
            _cfg(base),
            prompts=(RACCOON, HARBOUR),
            negative_prompts=(NEGATIVE, ""),
            num_frames=9,
            seed=77,
        ),
    )
    yield "unguided-50fps-6steps", replace(base, frame_rate=50.0, steps=6, sigmas=sigmas(6, 4096), seed=1234)
    yield "cfg-own-schedule", replace(_cfg(base), sigmas=None, num_frames=9)


def _pipelines() -> Iterator[tuple[str, str, Request]]:
    for variant, request in _variants():
        yield "one-stage-t2v", variant, request
    for variant, request in _image_variants():
        yield "one-stage-ti2v", variant, request


# Variants of one-stage text-to-video that also run against the official packages, which take one prompt at a time
_OFFICIAL = ("unguided", "cfg", "all-guidance", "all-guidance-odd", "cfg-own-schedule")
# (variant, dtype) of one-stage text-to-video that LTX-2.3 also runs with fused kernels
_WITH_KERNELS = (("all-guidance", "bf16"), ("unguided", "fp32"))


def cases() -> Iterator[Case]:
    plain = tuple(_plain())
    yield from plain
    for case in plain:
        wanted = case.model == "ltx-2.3" and case.pipeline == "one-stage-t2v"
        if wanted and (case.variant, case.dtype) in _WITH_KERNELS:
            yield replace(case, kernels="on")
    for case in plain:
        if case.pipeline == "one-stage-t2v" and case.variant in _OFFICIAL:
            yield replace(case, numerics="official-1.0.0", suites=("official",))
            yield replace(case, numerics="official-1.2.0", suites=("official-1.2.0",))


def _plain() -> Iterator[Case]:
    for model in MODELS:
        for pipeline, variant, request in _pipelines():
            for dtype in ("fp32", "bf16"):
                yield Case(
                    model=model,
                    pipeline=pipeline,
                    variant=variant,
                    layout=Layout.single(),
                    numerics="diffusers",
                    overrides=(),
                    dtype=dtype,
                    quantization="checkpoint",
                    kernels="off",
                    checkpoint="tiny",
                    request=request,
                    suites=("default",),
                )
