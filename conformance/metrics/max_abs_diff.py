from __future__ import annotations

from conformance.metrics.pairs import FramePair
from conformance.metrics.registry import register


@register("max_abs_diff", kind="frame", better="lower", unit="levels")
def max_abs_diff(pair: FramePair) -> float:
    """Largest absolute difference of any pixel and channel, in levels 0..255."""
    return float(pair.abs_diff_counts.nonzero()[0][-1])
