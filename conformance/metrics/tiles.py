"""Sums over square tiles of a frame, counted from the top left; tiles at the far edges may be partial."""

from __future__ import annotations

import numpy as np


def tile_counts(height: int, width: int, size: int) -> np.ndarray:
    """Pixels in each ``size`` x ``size`` tile of a frame."""
    return np.outer(*(np.minimum(size, side - np.arange(0, side, size)) for side in (height, width)))


def tile_sums(values_HK: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Exact sums of unsigned 8- or 16-bit values over ``rows`` x ``columns`` of them, at most 2^16 rows: uint64."""
    bands = [values_HK[top : top + rows].sum(axis=0, dtype=np.uint32) for top in range(0, len(values_HK), rows)]
    return np.add.reduceat(np.stack(bands), np.arange(0, values_HK.shape[1], columns), axis=1, dtype=np.uint64)


def total(values: np.ndarray) -> int:
    """Exact sum of unsigned 8- or 16-bit values [...,H,K]."""
    if values.ndim > 2:
        return sum(total(part) for part in values)
    return int(tile_sums(values, 65536, values.shape[1]).sum()) if values.size else 0
