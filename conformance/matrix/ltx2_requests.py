"""What the LTX-2 cases ask for, and of which references.

Sizes are small in tokens, not in structure: every guidance branch, both modalities, token counts that divide by
8 and 16 and counts that do not, several seeds, two batch sizes, three frame rates, pictures of the clip's size and of
another. Noise levels are written into the case (so that a schedule cannot hide behind the model) but for two cases a
model, where each side builds its own.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from conformance.case import Guidance, ImageCondition, Request, SecondStage
from conformance.tiling import Tiles, VideoTiling

OFF = Guidance(cfg=1.0, stg=0.0, modality=1.0, rescale=0.0)
NEGATIVE = "worst quality, inconsistent motion, blurry, jittery, distorted"
RACCOON = "A curious raccoon peers out of a hollow log; rain drums on the leaves."
HARBOUR = "Fog over a harbour at dawn."
DIFFUSERS, OFFICIAL, OFFICIAL_NEW = "diffusers", "official-1.0.0", "official-1.2.0"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A request under a name. numerics: presets it runs under, and so its references."""

    pipeline: str
    variant: str
    request: Request
    numerics: tuple[str, ...]


def _fp32(value: float) -> float:
    return float(struct.unpack("f", struct.pack("f", value))[0])


def sigmas(steps: int, tokens: int) -> tuple[float, ...]:
    """The LTX-2 noise levels: linear, shifted by the token count, stretched so that the last is 0.1 (fp32 values)."""
    slope = (2.05 - 0.95) / (4096 - 1024)
    shift = math.exp(0.95 + slope * (tokens - 1024))
    shifted = [shift / (shift + 1.0 / (1.0 - i / steps) - 1.0) for i in range(steps)]
    scale = (1.0 - shifted[-1]) / 0.9
    return tuple(_fp32(1.0 - (1.0 - s) / scale) for s in shifted)


# The released second stage: the last levels of the distilled schedule
DISTILLED = (0.909375, 0.725, 0.421875)


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
        vae_tiling=None,
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


def _picture(name: str, height: int, width: int, *, crf: int = 0, strength: float = 1.0) -> ImageCondition:
    return ImageCondition(picture=name, height=height, width=width, crf=crf, strength=strength)


def _one_stage() -> Iterator[Row]:
    def row(variant: str, request: Request, *numerics: str) -> Row:
        return Row(pipeline="one-stage-t2v", variant=variant, request=request, numerics=numerics)

    base, every = _base(), (DIFFUSERS, OFFICIAL, OFFICIAL_NEW)
    yield row("unguided", base, *every)
    yield row("cfg", _cfg(base), *every)
    yield row("all-guidance", _all_guidance(base), *every)
    # 3 x 3 x 5 = 45 video tokens and 17 audio tokens: multiples of neither 8 nor 16
    yield row("all-guidance-odd", replace(_all_guidance(base), height=96, width=160, frame_rate=25.0), *every)
    two: dict[str, Any] = {
        "prompts": (RACCOON, HARBOUR),
        "negative_prompts": (NEGATIVE, ""),
        "num_frames": 9,
        "seed": 77,
    }
    yield row("cfg-batch2", replace(_cfg(base), **two), DIFFUSERS)  # the official packages take one prompt at a time
    many = replace(base, frame_rate=50.0, steps=6, sigmas=sigmas(6, 4096), seed=1234)
    yield row("unguided-50fps-6steps", many, DIFFUSERS)
    yield row("cfg-own-schedule", replace(_cfg(base), sigmas=None, num_frames=9), *every)
    time = Tiles(size=8, stride=8)
    space = {"rows": Tiles(size=96, stride=64), "columns": Tiles(size=128, stride=64)}
    yield row("unguided-tiles", replace(base, vae_tiling=VideoTiling(**space, frames=time)), DIFFUSERS)
    overlapping = VideoTiling(rows=None, columns=None, frames=Tiles(size=16, stride=8))
    longer = replace(base, num_frames=33, height=64, width=96, vae_tiling=overlapping)
    yield row("unguided-tiles-frames", longer, DIFFUSERS)
    yield row("all-guidance-no-v2a", replace(_all_guidance(base), num_frames=9, skip_v2a=True), OFFICIAL)


def _from_image() -> Iterator[Row]:
    def row(variant: str, request: Request, *numerics: str) -> Row:
        return Row(pipeline="one-stage-ti2v", variant=variant, request=request, numerics=numerics)

    base, every = (
        replace(_base(), num_frames=9, image=_picture("blocks", 128, 192)),
        (DIFFUSERS, OFFICIAL, OFFICIAL_NEW),
    )
    yield row("unguided", base, *every)
    yield row("all-guidance", _all_guidance(base), *every)
    odd: dict[str, Any] = {"height": 96, "width": 160, "num_frames": 17}
    yield row("cfg-crf33-odd", replace(_cfg(base), **odd, image=_picture("rings", 96, 160, crf=33)), *every)
    yield row("cfg-fitted", replace(_cfg(base), image=_picture("rings", 150, 210)), *every)
    soft = _picture("blocks", 90, 170, crf=33, strength=0.7)
    yield row("cfg-strength", replace(_cfg(base), image=soft), OFFICIAL, OFFICIAL_NEW)


def _two_stage() -> Iterator[Row]:
    def row(pipeline: str, variant: str, request: Request, *numerics: str) -> Row:
        return Row(pipeline=f"two-stage-{pipeline}", variant=variant, request=request, numerics=numerics)

    every = (DIFFUSERS, OFFICIAL, OFFICIAL_NEW)
    second = SecondStage(sigmas=DISTILLED, lora_first=0.0, lora_second=1.0)
    base = replace(_base(), num_frames=9, second=second)
    adapted = replace(second, lora_first=0.25, lora_second=0.5)
    yield row("t2v", "cfg", _cfg(base), *every)
    wide: dict[str, Any] = {"height": 192, "width": 128, "num_frames": 17, "seed": 3, "second": adapted}
    yield row("t2v", "all-guidance-adapted", replace(_all_guidance(base), **wide), *every)
    yield row("ti2v", "cfg-crf33", replace(_cfg(base), image=_picture("rings", 150, 210, crf=33)), *every)
    # steps of the released pipeline's size in noise level, so that anchors are refined in some of them
    many: dict[str, Any] = {"steps": 8, "second": replace(second, lora_first=0.25, lora_second=0.5)}
    yield row("hq-t2v", "cfg-own-schedule", replace(_cfg(base), **many, sigmas=None), *every[1:])
    levels = sigmas(6, 4096)
    image = _picture("blocks", 100, 170, crf=33, strength=0.8)
    guided = replace(_all_guidance(base), steps=6, sigmas=levels, image=image, second=adapted)
    yield row("hq-ti2v", "all-guidance-strength", guided, *every[1:])


def rows() -> Iterator[Row]:
    """Every request, in the order reports list them."""
    yield from _one_stage()
    yield from _from_image()
    yield from _two_stage()
