from __future__ import annotations

import numpy as np

from conformance.metrics.pairs import MotionPair
from conformance.metrics.registry import register
from conformance.metrics.tiles import total


@register("temporal_diff", kind="motion", better="lower", unit="levels")
def temporal_diff(pair: MotionPair) -> float:
    """Mean absolute difference between the two sides' changes from the frame before: flicker, a bad frame, frames in
    another order. An error that stays the same from frame to frame cancels."""
    if pair.now.equal and pair.before.equal:
        return 0.0
    mine, theirs = (
        np.subtract(now, before, dtype=np.int16)
        for now, before in (
            (pair.now.candidate, pair.before.candidate),
            (pair.now.reference, pair.before.reference),
        )
    )
    mine -= theirs
    difference = np.abs(mine, out=mine).view(np.uint16)
    return total(difference.reshape(len(difference), -1)) / difference.size
