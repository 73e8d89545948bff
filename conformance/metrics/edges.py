"""Differences of neighbouring pixels of one frame, and their energy tile by tile.

Shapes: H, W (pixels), R, C (rows and columns of steps).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from conformance.metrics.tiles import tile_sums

TILE = 16


def abs_diff(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Absolute difference of two uint8 arrays, uint8."""
    above = np.maximum(a, b)
    above -= np.minimum(a, b)
    return above


@dataclass(frozen=True, eq=False)
class Edges:
    """Absolute steps of a frame from row to row (down, uint8 [3,H-1,W]) and from column to column (right,
    uint8 [3,H,W-1])."""

    down: np.ndarray
    right: np.ndarray

    @classmethod
    def of(cls, planes_3HW: np.ndarray) -> Edges:
        return cls(*(abs_diff(a, b) for a, b in neighbours(planes_3HW)))

    @property
    def energies(self) -> tuple[np.ndarray, np.ndarray]:
        """Squares of the steps down and to the right, summed over colours and 16x16 tiles."""
        return _energy(self.down), _energy(self.right)


def _energy(steps_3RC: np.ndarray) -> np.ndarray:
    if not steps_3RC.size:
        return np.zeros((0, 0), dtype=np.uint64)
    squares = np.multiply(steps_3RC, steps_3RC, dtype=np.uint16)
    return sum(tile_sums(plane, TILE, TILE) for plane in squares)  # type: ignore[return-value]


def neighbours(planes_3HW: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """The two sides of every step: down, then right."""
    return (planes_3HW[:, 1:], planes_3HW[:, :-1]), (planes_3HW[:, :, 1:], planes_3HW[:, :, :-1])
