"""First and second moments of a frame's colours in a space whose axes hardly correlate in pictures."""

from __future__ import annotations

import numpy as np

# Ohta, Kanade and Sakai 1980: brightness, red against blue, green against both. The integers below are these times
# their scale; a rise of all colours by one level moves the brightness by one.
SCALES = np.array([3, 2, 4])


def moments(planes_3HW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation [3] of a uint8 frame [3,H,W] along each axis, in levels, float64, from exact sums."""
    red, green, blue = (plane.astype(np.int16) for plane in planes_3HW)
    count = red.size
    sums = [(_sum(axis), _sum_of_squares(axis)) for axis in (red + green + blue, red - blue, 2 * green - red - blue)]
    means = np.array([first / count for first, _ in sums])
    variances = np.array([(count * second - first * first) / (count * count) for first, second in sums])
    return means / SCALES, np.sqrt(variances) / SCALES


def _sum(axis_HW: np.ndarray) -> int:
    return sum(int(rows.sum(axis=0, dtype=np.int32).sum(dtype=np.int64)) for rows in _blocks(axis_HW))


def _sum_of_squares(axis_HW: np.ndarray) -> int:
    squares = np.multiply(axis_HW, axis_HW, dtype=np.int32)
    return sum(int(rows.sum(axis=0, dtype=np.int32).sum(dtype=np.int64)) for rows in _blocks(squares))


def _blocks(values_HW: np.ndarray) -> list[np.ndarray]:
    """Parts whose column sums fit 32 bits: 2048 times 765^2, the largest square."""
    return [values_HW[top : top + 2048] for top in range(0, len(values_HW), 2048)]
