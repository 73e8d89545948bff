from __future__ import annotations

import math

import numpy as np

from conformance.errors import InputError
from conformance.metrics.edges import TILE
from conformance.metrics.pairs import FramePair
from conformance.metrics.registry import register
from conformance.metrics.tiles import tile_counts

QUANTISATION = 1 / 6  # variance of the difference of two values that were rounded to levels


def _quiet(tiles: tuple[np.ndarray, np.ndarray], height: int, width: int) -> float:
    """Mean squared step of the tile that a tenth of the tiles, of both directions, do not exceed."""
    counts = (tile_counts(height - 1, width, TILE), tile_counts(height, width - 1, TILE))
    means = np.sort(np.concatenate([(s / (3 * n)).ravel() for s, n in zip(tiles, counts, strict=True) if s.size]))
    return float(means[len(means) // 10])


@register("quiet_noise_db", kind="frame", better="lower", unit="dB")
def quiet_noise_db(pair: FramePair) -> float:
    """Ratio of the noise in the quiet tenth of the 16x16 tiles (mean squared difference of neighbouring pixels, plus
    that of rounding) in dB, without its sign: weak noise, lost grain, compression, which textures hide elsewhere."""
    height, width = pair.candidate.shape[:2]
    if max(height, width) < 2:
        raise InputError(f"quiet_noise_db: a frame is {height}x{width}; expected at least 2 pixels")
    mine, theirs = (_quiet(side, height, width) + QUANTISATION for side in pair.edge_tiles)
    return abs(10 * math.log10(mine / theirs))
