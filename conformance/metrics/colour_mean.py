from __future__ import annotations

import numpy as np

from conformance.metrics.pairs import FramePair
from conformance.metrics.registry import register


@register("colour_mean", kind="frame", better="lower", unit="levels")
def colour_mean(pair: FramePair) -> float:
    """Largest difference of the mean colours along brightness, red against blue and green against both (Ohta et al.
    1980): an offset, a cast, swapped channels."""
    if pair.equal:
        return 0.0
    (mine, _), (theirs, _) = pair.colours
    return float(np.abs(mine - theirs).max())
