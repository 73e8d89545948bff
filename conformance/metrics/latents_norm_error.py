from __future__ import annotations

from typing import TYPE_CHECKING

from conformance.metrics.registry import register

if TYPE_CHECKING:
    import torch


def norm_ratio(candidate: torch.Tensor, reference: torch.Tensor) -> float:
    """Norm of the candidate over the norm of the reference, in float64; against a zero reference 1 when both are
    zero, else infinite."""
    mine, theirs = float(candidate.double().norm()), float(reference.double().norm())
    if theirs == 0:
        return 1.0 if mine == 0 else float("inf") * mine  # NaN stays NaN
    return mine / theirs


@register("latents.norm_error", kind="latent", better="lower")
def norm_error(candidate: torch.Tensor, reference: torch.Tensor) -> float:
    """How far the ratio of the norms is from 1, in float64: a lost or doubled scale that cosine cannot see."""
    return abs(norm_ratio(candidate, reference) - 1.0)
