from __future__ import annotations

from typing import TYPE_CHECKING

from conformance.metrics.registry import register

if TYPE_CHECKING:
    import torch


@register("latents.rel_l2", kind="latent", better="lower")
def rel_l2(candidate: torch.Tensor, reference: torch.Tensor) -> float:
    """Norm of the difference over the norm of the reference, in float64; against a zero reference 0 when equal,
    else infinite."""
    difference = float((candidate.double() - reference.double()).norm())
    norm = float(reference.double().norm())
    if norm == 0:
        return 0.0 if difference == 0 else float("inf") * difference  # NaN stays NaN
    return difference / norm
