from __future__ import annotations

import numpy as np

from conformance.errors import InputError
from conformance.metrics.pairs import FramePair
from conformance.metrics.registry import register

BLOCK = 8
CLIP = 16  # levels: a step above this is content
FLAT = 0.05  # levels: below this a block has no edges to compare


def _phases(steps_3RC: np.ndarray, axis: int) -> np.ndarray:
    """Mean step at each of 8 places within a block, relative to the block's mean: the median of all blocks [8]."""
    lines = np.minimum(steps_3RC, CLIP).sum(axis=2 - axis, dtype=np.uint32).sum(axis=0)
    means = lines * (len(lines) / steps_3RC.size)
    blocks = means[: len(means) // BLOCK * BLOCK].reshape(-1, BLOCK)
    return np.median(blocks / np.maximum(blocks.mean(axis=1, keepdims=True), FLAT), axis=0)


@register("blockiness", kind="frame", better="lower")
def blockiness(pair: FramePair) -> float:
    """How much more the edges at one of 8 places stand out on one side than on the other (1 is as much as the mean
    edge): blocks of a lossy codec or of a decoder, at any phase, in rows or columns."""
    height, width = pair.candidate.shape[:2]
    if max(height, width) <= BLOCK:
        raise InputError(f"blockiness: a frame is {height}x{width}; expected a side of at least {BLOCK + 1}")
    mine, theirs = pair.edges
    found = [0.0]
    for axis, (a, b) in enumerate(((mine.down, theirs.down), (mine.right, theirs.right))):
        if (height, width)[axis] > BLOCK:
            found.append(float(np.abs(_phases(a, axis) - _phases(b, axis)).max()))
    return max(found)
