from __future__ import annotations

from conformance.metrics.pairs import FramePair, tile_means
from conformance.metrics.registry import register


@register("tile_ssim", kind="frame", better="higher")
def tile_ssim(pair: FramePair) -> float:
    """The worst 32x32 tile of the SSIM map: what the mean over a frame hides."""
    return float(tile_means(pair.ssim[1]).min())
