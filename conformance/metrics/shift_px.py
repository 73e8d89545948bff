from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from conformance.metrics.pairs import FramePair
from conformance.metrics.registry import register


def _spectrum(planes_3HW: np.ndarray) -> np.ndarray:
    """Spectrum of the sum of the colours, without its mean, under a Hann window (the frame's edges do not move)."""
    from scipy.fft import rfft2

    height, width = planes_3HW.shape[1:]
    grey_HW = planes_3HW.sum(axis=0, dtype=np.uint16).astype(np.float32)
    grey_HW -= np.float32(grey_HW.mean(dtype=np.float64))
    grey_HW *= _hann(height, width)
    return rfft2(grey_HW)


@lru_cache(maxsize=4)
def _hann(height: int, width: int) -> np.ndarray:
    rows, columns = (np.sin(np.pi * (np.arange(side) + 0.5) / side) ** 2 for side in (height, width))
    return np.outer(rows, columns).astype(np.float32)


def _beyond(peak: float, before: float, after: float) -> float:
    """Place of the top of the parabola through a peak and its two neighbours, from the peak, in pixels."""
    curvature = 2 * peak - before - after
    return (after - before) / (2 * curvature) if curvature > 0 else 0.0


@register("shift_px", kind="frame", better="lower", unit="px")
def shift_px(pair: FramePair) -> float:
    """Distance by which the picture has moved, by phase correlation (Kuglin and Hines 1975) to a part of a pixel."""
    if pair.equal:
        return 0.0
    from scipy.fft import irfft2

    height, width = pair.candidate.shape[:2]
    cross = _spectrum(pair.planes[0]) * np.conj(_spectrum(pair.planes[1]))
    size = np.abs(cross)
    if not size.any():
        return 0.0  # a flat frame has no place
    surface_HW = irfft2(cross / np.maximum(size, size.max() * np.float32(1e-7)), s=(height, width))
    y, x = (int(i) for i in np.unravel_index(int(surface_HW.argmax()), surface_HW.shape))
    peak = float(surface_HW[y, x])
    dy = _beyond(peak, float(surface_HW[y - 1, x]), float(surface_HW[(y + 1) % height, x]))
    dx = _beyond(peak, float(surface_HW[y, x - 1]), float(surface_HW[y, (x + 1) % width]))
    return math.hypot(*(at - size if at > size / 2 else at for at, size in ((y + dy, height), (x + dx, width))))
