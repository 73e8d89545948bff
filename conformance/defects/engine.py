"""Defects of an LTX-2 engine in one forward or one step, each one a bug that some engine has had or could have.

What of it shows where: ``conformance.defects.registry``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from conformance.case import Guidance
from conformance.defects.variants import variant, with_numerics
from conformance.generator import Probe
from engine.layers import feedforward
from engine.layers.attention import Attention
from engine.models.ltx2 import block, positions, transformer
from engine.models.ltx2.connectors import LTX2Connectors
from engine.numerics import Numerics
from engine.pipelines import ltx2 as pipeline
from engine.pipelines import ltx2_starts as starts
from engine.pipelines.ltx2_inputs import Latents, TextStates
from engine.sampling import guidance

_attention_forward = Attention.forward
_cross_attention = block.Block._cross_attention
_video_bounds = positions.video_bounds
_combine = guidance.combine
_rescale = guidance.rescale
_noisy_tokens = starts.noisy_tokens


def _erf(self: feedforward.GeluProjection, x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.gelu(self.proj(x))


def _starts(bounds_BXT2: torch.Tensor) -> torch.Tensor:
    return bounds_BXT2[..., 0]


def _undivided(shape: Any, frame_rate: float, *rest: Any) -> torch.Tensor:
    return _video_bounds(shape, 1.0, *rest)


def _no_v2a(self: block.Block, video: torch.Tensor, audio: torch.Tensor, *streams: Any) -> Any:
    return _cross_attention(self, video, audio, *streams)[0], audio


def _ungated(self: Attention, *inputs: Any, **more: Any) -> torch.Tensor:
    gate = self.to_gate_logits
    self.to_gate_logits = None
    try:
        return _attention_forward(self, *inputs, **more)
    finally:
        self.to_gate_logits = gate


def _batched(
    connectors: LTX2Connectors, text: Mapping[str, TextStates], numerics: Numerics, probe: Probe
) -> dict[str, dict[str, torch.Tensor]]:
    """One connector call for all prompts, compacted with the first row's mask: right for equal lengths only."""
    embeds = torch.cat([states.embeds for states in text.values() if states.embeds is not None])
    masks = torch.cat([states.mask for states in text.values() if states.mask is not None])
    video, audio = connectors(embeds, masks[:1].expand_as(masks), numerics)
    names = list(text)
    out: dict[str, dict[str, torch.Tensor]] = {name: {} for name in names}
    for stream, batched in (("video", video), ("audio", audio)):
        for name, part in zip(names, batched.chunk(len(names)), strict=True):
            out[name][stream] = part
            probe.tap(f"connector/{name}/{stream}", part)
    return out


def _swapped(x0: Mapping[str, torch.Tensor], scales: Guidance, *rest: Any) -> torch.Tensor:
    if "uncond" in x0:
        x0 = {**x0, "cond": x0["uncond"], "uncond": x0["cond"]}
    return _combine(x0, scales, *rest)


def _complement(guided: torch.Tensor, cond: torch.Tensor, weight: float, numerics: Numerics) -> torch.Tensor:
    return _rescale(guided, cond, 1.0 - weight, numerics)


def _all_noisy(latents: Latents, strength: float, device: torch.device) -> torch.Tensor:
    return torch.ones_like(_noisy_tokens(latents, strength, device))


fp32_grid = with_numerics("fp32-grid", rope_grid_dtype="float32")
erf_gelu = variant("erf-gelu", (feedforward.GeluProjection, "forward", _erf))
start_positions = variant("start-positions", (transformer, "midpoints", _starts))
no_frame_rate = variant("no-frame-rate", (positions, "video_bounds", _undivided))
v2a_skipped = variant("v2a-skipped", (block.Block, "_cross_attention", _no_v2a))
gates_ignored = variant("gates-ignored", (Attention, "forward", _ungated))
stg_zeroed = with_numerics("stg-zeroed", stg="zeros")
connector_batched = variant("connector-batched", (pipeline, "contexts", _batched))
cfg_swapped = variant("cfg-swapped", (guidance, "combine", _swapped))
rescale_complement = variant("rescale-complement", (guidance, "rescale", _complement))

given_frame_timestep = variant("given-frame-timestep", (starts, "noisy_tokens", _all_noisy))
