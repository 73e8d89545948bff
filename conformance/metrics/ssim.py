from __future__ import annotations

from conformance.metrics.pairs import FramePair
from conformance.metrics.registry import register


@register("ssim", kind="frame", better="higher")
def ssim(pair: FramePair) -> float:
    """Structural similarity (Wang et al. 2004) as scikit-image defines it: uniform 7x7 window, sample covariance,
    mean over the channels of the full-size RGB frame."""
    return pair.ssim[0]
