from __future__ import annotations

import numpy as np

from conformance.errors import InputError
from conformance.metrics.edges import neighbours
from conformance.metrics.pairs import FramePair
from conformance.metrics.registry import register

CLIP = 16  # levels: content that differs here and there must not outweigh a jump along the whole line


@register("seam_step", kind="frame", better="lower", unit="levels")
def seam_step(pair: FramePair) -> float:
    """Largest jump of the signed difference from one row or column to the next, each jump cut to 16 levels and then
    averaged along the line, one colour at a time: the border of a tile, shard or stripe."""
    height, width = pair.candidate.shape[:2]
    if max(height, width) < 2:
        raise InputError(f"seam_step: a frame is {height}x{width}; expected at least 2 pixels")
    if pair.equal:
        return 0.0
    mine, theirs = pair.planes
    down, right = (np.clip(a - b, -CLIP, CLIP) for a, b in neighbours(np.subtract(mine, theirs, dtype=np.int16)))
    rows, columns = down.sum(axis=2, dtype=np.int32) / width, right.sum(axis=1, dtype=np.int32) / height
    return max(float(np.abs(jumps).max(initial=0.0)) for jumps in (rows, columns))
