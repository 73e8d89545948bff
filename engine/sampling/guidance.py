"""Guidance: which forwards a step needs, and how their x0 are combined.

Classifier-free guidance: Ho and Salimans 2022, arXiv:2207.12598. Spatio-temporal guidance: Hyung et al. 2024,
arXiv:2411.18664. Rescale: Lin et al. 2023, arXiv:2305.08891, section 3.4. Modality guidance moves away from a
forward without attention between the streams (LTX-2).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import torch

from conformance.case import Guidance
from engine.numerics import Numerics


def uses_cfg(scales: Iterable[Guidance]) -> bool:
    """Whether any stream needs a forward with the negative prompt."""
    return any(guidance.cfg > 1.0 for guidance in scales)


def forwards(scales: Collection[Guidance], numerics: Numerics) -> tuple[tuple[str, ...], ...]:
    """Branches of each forward of a step, in order. A forward carries both streams, so either one asks for it."""
    plan: list[tuple[str, ...]] = [("cond",)]
    if uses_cfg(scales):
        plan = [("uncond", "cond")] if numerics.cfg_batch == "pair" else [("cond",), ("uncond",)]
    if any(guidance.stg > 0.0 for guidance in scales):
        plan.append(("stg",))
    if any(guidance.modality > 1.0 for guidance in scales):
        plan.append(("modality",))
    return tuple(plan)


def combine(x0: Mapping[str, torch.Tensor], guidance: Guidance, numerics: Numerics, dtype: torch.dtype) -> torch.Tensor:
    """c + (cfg-1)(c-u) + stg(c-p) + (modality-1)(c-m) over the branches there are, then the rescale.

    x0: clean estimate [B,T,C] by branch. dtype: model dtype. Returns the dtype of ``x0["cond"]``.
    """
    work = dtype if numerics.guider_dtype == "model" else torch.float32
    cond = x0["cond"].to(work)
    guided = cond
    for branch, scale in (("uncond", guidance.cfg - 1), ("stg", guidance.stg), ("modality", guidance.modality - 1)):
        if branch in x0:
            guided = guided + scale * (cond - x0[branch].to(work))
    if guidance.rescale > 0:
        guided = rescale(guided, cond, guidance.rescale, numerics)
    return guided.to(x0["cond"].dtype)


def rescale(guided: torch.Tensor, cond: torch.Tensor, weight: float, numerics: Numerics) -> torch.Tensor:
    """Blend ``guided`` [B,T,C] with itself at the standard deviation of ``cond``."""
    if numerics.rescale == "whole-tensor":
        return guided * (weight * (cond.std() / guided.std()) + (1 - weight))
    axes = tuple(range(1, cond.ndim))
    ratio = cond.std(dim=axes, keepdim=True) / guided.std(dim=axes, keepdim=True)
    return weight * (guided * ratio) + (1 - weight) * guided
