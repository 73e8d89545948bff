from __future__ import annotations

from typing import TYPE_CHECKING

from conformance.metrics.registry import register
from conformance.metrics.slices import worst_slice

if TYPE_CHECKING:
    import torch


@register("latents.worst_token", kind="latent", better="lower")
def worst_token(candidate: torch.Tensor, reference: torch.Tensor) -> float:
    """Norm of the difference of the worst token (last axis but one) over the root mean square of the norms of the
    reference's tokens, in float64: one lost or misplaced block."""
    return worst_slice(candidate, reference, -2)
