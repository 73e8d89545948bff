from __future__ import annotations

from typing import TYPE_CHECKING

from conformance.errors import InputError
from conformance.metrics.registry import register

if TYPE_CHECKING:
    import torch


def _share(latents: torch.Tensor) -> float:
    return float((latents == latents.bfloat16().to(latents.dtype)).double().mean())


@register("latents.coarse_share", kind="latent", better="lower")
def coarse_share(candidate: torch.Tensor, reference: torch.Tensor) -> float:
    """Difference of the shares of elements that bf16 holds exactly: a state that was rounded on the way is seen
    below any noise."""
    if not reference.numel():
        raise InputError(f"latents are {list(reference.shape)}; expected at least one value")
    return abs(_share(candidate) - _share(reference))
