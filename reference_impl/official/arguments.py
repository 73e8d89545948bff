"""What the packages are told of a request, the same in every version of them."""

from __future__ import annotations

from typing import Any

import torch

from conformance.case import Guidance, Request


def guider(guidance: Guidance, request: Request, negative: torch.Tensor | None) -> Any:
    """The ``MultiModalGuider`` of one stream. negative: its text context of the negative prompt, under CFG."""
    from ltx_core.components.guiders import MultiModalGuider, MultiModalGuiderParams

    params = MultiModalGuiderParams(
        cfg_scale=guidance.cfg,
        stg_scale=guidance.stg,
        stg_blocks=list(request.stg_blocks),
        rescale_scale=guidance.rescale,
        modality_scale=guidance.modality,
        skip_step=0,
    )
    return MultiModalGuider(params=params, negative_context=negative)


def guiders(request: Request, text: dict[str, Any]) -> tuple[Any, Any]:
    """The guiders of video and audio. text: by sign ``pos`` and, under CFG, ``neg``: ``EmbeddingsProcessorOutput``."""
    negative = text.get("neg")
    return (
        guider(request.video_guidance, request, None if negative is None else negative.video_encoding),
        guider(request.audio_guidance, request, None if negative is None else negative.audio_encoding),
    )
