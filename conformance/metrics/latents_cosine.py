from __future__ import annotations

import math
from typing import TYPE_CHECKING

from conformance.metrics.registry import register

if TYPE_CHECKING:
    import torch


@register("latents.cosine", kind="latent", better="higher")
def cosine(candidate: torch.Tensor, reference: torch.Tensor) -> float:
    """Cosine of the angle between the flattened tensors, in float64, within [-1, 1]; 1 when both are zero, 0 when
    one is."""
    a, b = candidate.double().flatten(), reference.double().flatten()
    aa, bb, ab = float(a.dot(a)), float(b.dot(b)), float(a.dot(b))
    if aa == 0 or bb == 0:
        return 1.0 if aa == bb else 0.0 * (aa + bb)  # NaN stays NaN
    value = ab / math.sqrt(aa * bb)
    return value if math.isnan(value) else max(-1.0, min(1.0, value))
