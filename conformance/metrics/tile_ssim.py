from __future__ import annotations

from conformance.metrics.pairs import FramePair
from conformance.metrics.registry import register


@register("tile_ssim", kind="frame", better="higher")
def tile_ssim(pair: FramePair) -> float:
    """The worst 32x32 tile of the SSIM map: what the mean over a frame hides."""
    return float(pair.ssim_tiles.min())
