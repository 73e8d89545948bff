"""Structural similarity of uint8 frames by exact integer sums over windows: scikit-image's values, several times
faster, and one tile row of memory.

Shapes: H, W (pixels), R (rows of a strip), K (colour values of a row, W*3 interleaved).
"""

from __future__ import annotations

import numpy as np

WINDOW = 7
N = WINDOW * WINDOW
# (0.01 * 255)^2 and (0.03 * 255)^2 (Wang et al. 2004), times what the sums below leave undivided: the means N each,
# the sample covariance N * (N - 1)
C1 = 6.5025 * N * N
C2 = 58.5225 * N * (N - 1)


def _window_sums(values_RK: np.ndarray) -> np.ndarray:
    """Sum over every 7x7 window that lies inside, one colour at a time: [R-6, K-18]. 7 = 1 + 2 + 4."""
    two = values_RK[1:] + values_RK[:-1]
    four = two[2:] + two[:-2]
    rows = four[:-3] + two[4:-1] + values_RK[6:]
    two = rows[:, 3:] + rows[:, :-3]
    four = two[:, 6:] + two[:, :-6]
    return four[:, :-9] + two[:, 12:-3] + rows[:, 18:]


def _strip(a_RK: np.ndarray, b_RK: np.ndarray) -> np.ndarray:
    """SSIM of every window of a strip, float64 [R-6, K-18]. 16 bits hold 255^2 and 49 * 255, 32 the rest: the largest
    is 2 * 49 * 49 * 255^2."""
    a, b = a_RK.astype(np.uint16), b_RK.astype(np.uint16)
    sum_a, sum_b = _window_sums(a).astype(np.int32), _window_sums(b).astype(np.int32)
    covariance = _window_sums((a * b).astype(np.int32))
    squares = (a * a).astype(np.int32)
    squares += b * b
    variances = _window_sums(squares)
    product = sum_a * sum_b
    means = np.square(sum_a, out=sum_a)
    means += np.square(sum_b, out=sum_b)
    covariance *= N
    covariance -= product
    variances *= N
    variances -= means
    product *= 2
    covariance *= 2
    ssim = product + C1
    ssim *= covariance + C2
    below = means + C1
    below *= variances + C2
    ssim /= below
    return ssim


def ssim_tile_sums(a_HW3: np.ndarray, b_HW3: np.ndarray, tile: int) -> np.ndarray:
    """Sums of the SSIM map [H-6,W-6] over ``tile`` x ``tile`` pixels and 3 colours, from the top left; tiles at the
    far edges may be partial. Frames uint8 [H,W,3] of equal shape with at least 7 pixels a side."""
    height, width = a_HW3.shape[:2]
    a_HK, b_HK = (np.ascontiguousarray(side).reshape(height, width * 3) for side in (a_HW3, b_HW3))
    rows, columns = height - WINDOW + 1, (width - WINDOW + 1) * 3
    bands = [
        _strip(a_HK[top : top + tile + WINDOW - 1], b_HK[top : top + tile + WINDOW - 1]).sum(axis=0)
        for top in range(0, rows, tile)  # larger strips leave the cache and take twice as long
    ]
    return np.add.reduceat(np.stack(bands), np.arange(0, columns, tile * 3), axis=1)
