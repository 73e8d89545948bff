from __future__ import annotations

from conformance.metrics.pairs import FramePair
from conformance.metrics.registry import register


@register("ssim", kind="frame", better="higher")
def ssim(pair: FramePair) -> float:
    """Structural similarity (Wang et al. 2004) as scikit-image defines it: uniform 7x7 window, sample covariance,
    mean over the channels of the full-size RGB frame."""
    if not pair.equal:
        return float((pair.ssim_tiles * pair.ssim_tile_counts).sum() / pair.ssim_tile_counts.sum())
    return float(pair.ssim_tiles.max())
