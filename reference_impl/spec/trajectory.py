"""A whole denoising loop in float64: the truth that the final latents of a run are measured by.

One stage, Euler, from the taps of a run: start, text contexts, noise levels, positions. The DiT is ``oracle``.
Guidance and its sources: ``guidance``. Legend: B batch, T tokens, C latent channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from conformance.case import Guidance
from reference_impl.spec.oracle import Inputs, Weights, velocities
from reference_impl.spec.rounding import exact

STREAMS = ("video", "audio")
States = dict[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Loop:
    """state: packed latents at the first noise level. contexts: by prompt (``pos``, ``neg``) and stream. sigmas [N+1].
    bounds: token bounds by stream. guidance: by stream. stg_blocks: as in ``Request``.
    """

    state: States
    contexts: Mapping[str, States]
    sigmas: torch.Tensor
    bounds: States
    guidance: Mapping[str, Guidance]
    stg_blocks: tuple[int, ...]


def run(weights: Weights, config: Mapping[str, Any], loop: Loop) -> dict[str, torch.Tensor]:
    """``first/{video,audio}``: conditional velocities of the first step; ``final/{video,audio}``: the latents at the
    end. [B,T,C], float64.
    """
    state = {stream: exact(x) for stream, x in loop.state.items()}
    out: dict[str, torch.Tensor] = {}
    for step, (sigma, later) in enumerate(zip(loop.sigmas[:-1], loop.sigmas[1:], strict=True)):
        branches = {name: _forward(weights, config, loop, state, sigma, name) for name in _branches(loop)}
        if step == 0:
            out |= {f"first/{stream}": branches["cond"][stream] for stream in STREAMS}
        level, gap = exact(sigma), exact(later) - exact(sigma)
        for stream in STREAMS:
            x0 = {name: state[stream] - velocity[stream] * level for name, velocity in branches.items()}
            guided = _guided(x0, loop.guidance[stream])
            state[stream] = state[stream] + gap * (state[stream] - guided) / level
    return out | {f"final/{stream}": state[stream] for stream in STREAMS}


def _branches(loop: Loop) -> list[str]:
    scales = loop.guidance.values()
    asked = {
        "cond": True,
        "uncond": any(scale.cfg > 1 for scale in scales),
        "stg": any(scale.stg > 0 for scale in scales),
        "modality": any(scale.modality > 1 for scale in scales),
    }
    return [name for name, wanted in asked.items() if wanted]


def _forward(
    weights: Weights, config: Mapping[str, Any], loop: Loop, state: States, sigma: torch.Tensor, branch: str
) -> States:
    text = loop.contexts["neg" if branch == "uncond" else "pos"]
    times = (sigma * 1000).expand(state["video"].shape[0])
    inputs = Inputs(
        video=state["video"],
        audio=state["audio"],
        video_text=text["video"],
        audio_text=text["audio"],
        timestep=times,
        audio_timestep=times,
        sigma=times,
        video_bounds=loop.bounds["video"],
        audio_bounds=loop.bounds["audio"],
        perturbed=loop.stg_blocks if branch == "stg" else (),
        isolated=branch == "modality",
    )
    return dict(zip(STREAMS, velocities(weights, config, inputs), strict=True))


def _guided(x0: Mapping[str, torch.Tensor], scale: Guidance) -> torch.Tensor:
    cond = guided = x0["cond"]
    for name, weight in (("uncond", scale.cfg - 1), ("stg", scale.stg), ("modality", scale.modality - 1)):
        if name in x0:
            guided = guided + weight * (cond - x0[name])
    if scale.rescale > 0:
        dims = tuple(range(1, cond.ndim))
        ratio = cond.std(dims, keepdim=True) / guided.std(dims, keepdim=True)
        guided = scale.rescale * guided * ratio + (1 - scale.rescale) * guided
    return guided
