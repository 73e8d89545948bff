"""What goes into a stage of an LTX-2 pipeline: text contexts and packed noise.

Legend: B prompts, E packed text width, S text tokens, T tokens of a stream, C latent channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from conformance.errors import InputError
from conformance.generator import Probe
from engine.models.ltx2 import positions
from engine.models.ltx2.connectors import LTX2Connectors
from engine.numerics import Numerics

STREAMS = ("video", "audio")


@dataclass(frozen=True, kw_only=True)
class TextStates:
    """Packed states of every text encoder layer [B,S,E] in the model dtype and token mask [B,S]."""

    embeds: torch.Tensor | None
    mask: torch.Tensor | None


@dataclass(frozen=True, kw_only=True)
class Latents:
    """Sizes of the unpacked latents: video [B,C,F,H,W] and audio [B,C,L,M]."""

    video: tuple[int, int, int, int, int]
    audio: tuple[int, int, int, int]


def contexts(
    connectors: LTX2Connectors, text: Mapping[str, TextStates], numerics: Numerics, probe: Probe
) -> dict[str, dict[str, torch.Tensor]]:
    """Text context [B,S,·] by prompt (``pos``, ``neg``) and stream; one connector call per prompt, or one for both.

    InputError when a prompt's embeddings or mask are missing.
    """
    given: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for prompt, states in text.items():
        embeds, mask = states.embeds, states.mask
        if embeds is None or mask is None:
            name = "embeds" if embeds is None else "mask"
            raise InputError(f"ltx2: {name!r} of prompt {prompt!r} is missing; expected a tensor")
        given[prompt] = (embeds, mask)
    # neg before pos
    calls = [sorted(given)] if numerics.connector_batch == "pair" else [[prompt] for prompt in given]
    out: dict[str, dict[str, torch.Tensor]] = {prompt: {} for prompt in given}
    for prompts in calls:
        embeds, mask = (torch.cat(parts) for parts in zip(*(given[prompt] for prompt in prompts), strict=True))
        for stream, context in zip(STREAMS, connectors(embeds, mask, numerics), strict=True):
            for prompt, part in zip(prompts, context.chunk(len(prompts)), strict=True):
                out[prompt][stream] = part
                probe.tap(f"connector/{prompt}/{stream}", part)
    return out


def pack_noise(
    video_BCFHW: torch.Tensor, audio_BCLM: torch.Tensor, numerics: Numerics, probe: Probe
) -> dict[str, torch.Tensor]:
    """Noise as float32 tokens [B,T,C]."""
    state = {"video": positions.pack_video(video_BCFHW, numerics), "audio": positions.pack_audio(audio_BCLM)}
    for stream in STREAMS:
        probe.tap(f"noise/{stream}", state[stream])
    return state
