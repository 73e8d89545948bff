from __future__ import annotations

from conformance.metrics.pairs import FramePair, tile_means
from conformance.metrics.registry import register


@register("tile_mean_abs_diff", kind="frame", better="lower", unit="levels")
def tile_mean_abs_diff(pair: FramePair) -> float:
    """Mean absolute difference of the worst 32x32 tile (edge tiles may be partial), in levels 0..255."""
    return float(tile_means(pair.abs_diff_HW3).max())
