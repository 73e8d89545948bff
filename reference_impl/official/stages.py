"""The stages of a pipeline: what each of them denoises, and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from conformance.case import Request
from conformance.inputs import draw_noise, noise_generator

STREAMS = ("video", "audio")
ONE_STAGE = ("one-stage-t2v", "one-stage-ti2v")
TWO_STAGE = ("two-stage-t2v", "two-stage-ti2v")
HQ = ("two-stage-hq-t2v", "two-stage-hq-ti2v")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One denoising of both streams.

    name: scope of its taps, empty where it is the only stage. size: its ``VideoPixelShape``. sigmas: float32 [N+1] on
    the CPU, the last is 0. noise: packed tokens by stream, float32, in memory as the packages draw theirs. lora:
    strength of the distilled LoRA. guided: as the request says; otherwise by the positive prompt alone.
    second_order: res2s takes the place of Euler.
    """

    name: str
    size: Any
    sigmas: torch.Tensor
    noise: Mapping[str, torch.Tensor]
    lora: float
    guided: bool
    second_order: bool


def stages(pipeline: str, request: Request) -> list[Stage]:
    """Those of a pipeline that the packages have. Noise comes from one generator, stage by stage."""
    generator, second = noise_generator(request.seed), request.second
    first = _size(request, *request.first_size)
    order = {"second_order": pipeline in HQ}
    found = [
        Stage(
            name="" if second is None else "stage.1",
            size=first,
            sigmas=_sigmas(request, first if pipeline in HQ else None),
            noise=_noise(generator, first),
            lora=0.0 if second is None else second.lora_first,
            guided=True,
            **order,
        )
    ]
    if second is not None:
        size = _size(request, request.height, request.width)
        sigmas = torch.tensor([*second.sigmas, 0.0], dtype=torch.float32)
        noise = _noise(generator, size)
        last = Stage(
            name="stage.2", size=size, sigmas=sigmas, noise=noise, lora=second.lora_second, guided=False, **order
        )
        found.append(last)
    return found


def _size(request: Request, height: int, width: int) -> Any:
    from ltx_core.types import VideoPixelShape

    return VideoPixelShape(batch=1, frames=request.num_frames, height=height, width=width, fps=request.frame_rate)


def _sigmas(request: Request, size: Any) -> torch.Tensor:
    """The case's levels, or the packages' schedule: for 4096 tokens, or for the tokens of ``size``."""
    if request.sigmas is not None:
        return torch.tensor([*request.sigmas, 0.0], dtype=torch.float32)
    from ltx_core.components.schedulers import LTX2Scheduler
    from ltx_core.types import VideoLatentShape

    latent = None if size is None else torch.empty(VideoLatentShape.from_pixel_shape(size).to_torch_shape())
    return LTX2Scheduler().execute(steps=request.steps, latent=latent).to(torch.float32)


def _noise(generator: torch.Generator, size: Any) -> dict[str, torch.Tensor]:
    from ltx_core.components.patchifiers import AudioPatchifier, VideoLatentPatchifier
    from ltx_core.types import AudioLatentShape, VideoLatentShape

    video = VideoLatentShape.from_pixel_shape(size).to_torch_shape()
    audio = AudioLatentShape.from_video_pixel_shape(size).to_torch_shape()
    unpacked = draw_noise(generator, tuple(video), tuple(audio))
    patchifiers = (VideoLatentPatchifier(patch_size=1), AudioPatchifier(patch_size=1))
    return {
        stream: patchifier.patchify(noise).contiguous()
        for stream, patchifier, noise in zip(STREAMS, patchifiers, unpacked, strict=True)
    }
