from __future__ import annotations

import numpy as np

from conformance.metrics.pairs import FramePair
from conformance.metrics.registry import register


@register("p999_abs_diff", kind="frame", better="lower", unit="levels")
def p999_abs_diff(pair: FramePair) -> float:
    """99.9th percentile of the absolute difference over pixels and channels: the smallest level that at least
    99.9 % of the values do not exceed."""
    counts = pair.abs_diff_counts.cumsum()
    return float(np.searchsorted(counts * 1000, counts[-1] * 999))
