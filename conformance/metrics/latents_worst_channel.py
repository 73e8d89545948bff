from __future__ import annotations

from typing import TYPE_CHECKING

from conformance.metrics.registry import register
from conformance.metrics.slices import worst_slice

if TYPE_CHECKING:
    import torch


@register("latents.worst_channel", kind="latent", better="lower")
def worst_channel(candidate: torch.Tensor, reference: torch.Tensor) -> float:
    """Norm of the difference of the worst channel (last axis) over the root mean square of the norms of the
    reference's channels, in float64: one lost or swapped channel."""
    return worst_slice(candidate, reference, -1)
