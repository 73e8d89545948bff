from __future__ import annotations

import numpy as np

from conformance.metrics.pairs import FramePair
from conformance.metrics.registry import register


@register("mean_abs_diff", kind="frame", better="lower", unit="levels")
def mean_abs_diff(pair: FramePair) -> float:
    """Mean over pixels and channels of the absolute difference, in levels 0..255."""
    return int(pair.abs_diff_counts @ np.arange(256)) / pair.abs_diff_HW3.size
