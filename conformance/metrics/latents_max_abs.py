from __future__ import annotations

from typing import TYPE_CHECKING

from conformance.metrics.registry import register

if TYPE_CHECKING:
    import torch


@register("latents.max_abs", kind="latent", better="lower")
def max_abs(candidate: torch.Tensor, reference: torch.Tensor) -> float:
    """Largest absolute difference of any element, in float64; 0 for empty tensors."""
    difference = (candidate.double() - reference.double()).abs()
    return float(difference.max()) if difference.numel() else 0.0
