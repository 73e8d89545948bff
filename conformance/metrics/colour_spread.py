from __future__ import annotations

import numpy as np

from conformance.metrics.pairs import FramePair
from conformance.metrics.registry import register


@register("colour_spread", kind="frame", better="lower", unit="levels")
def colour_spread(pair: FramePair) -> float:
    """Largest difference of the standard deviations along brightness, red against blue and green against both:
    contrast and saturation."""
    if pair.equal:
        return 0.0
    (_, mine), (_, theirs) = pair.colours
    return float(np.abs(mine - theirs).max())
