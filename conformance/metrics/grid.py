from __future__ import annotations

from collections.abc import Callable

import numpy as np

from conformance.errors import InputError
from conformance.metrics.pairs import FramePair
from conformance.metrics.registry import register

NEIGHBOURS = 4  # bins on each side of a harmonic that say what the difference holds without a grid


def _amplitude(profile_3L: np.ndarray, period: int) -> float:
    """Root mean square of what repeats in a profile [3,L], beyond the bins beside each harmonic."""
    length = profile_3L.shape[1] // period * period
    apart = length // period  # bins from one harmonic to the next
    power = np.square(np.abs(np.fft.rfft(profile_3L[:, :length], axis=1))).mean(axis=0) / length**2
    power[1 : (length + 1) // 2] *= 2  # the negative frequencies
    reach = min(NEIGHBOURS, apart - 1)
    excess = 0.0
    for k in range(apart, len(power), apart):
        beside = np.concatenate((power[k - reach : k], power[k + 1 : k + 1 + reach]))
        excess += max(0.0, float(power[k] - beside.mean()))
    return float(np.sqrt(excess))


def _grid(period: int) -> Callable[[FramePair], float]:
    def measure(pair: FramePair) -> float:
        height, width = pair.candidate.shape[:2]
        if max(height, width) < 2 * period:
            raise InputError(f"grid_{period}: a frame is {height}x{width}; expected a side of at least {2 * period}")
        if pair.equal:
            return 0.0
        return max(_amplitude(profile, period) for profile in pair.profiles if profile.shape[1] >= 2 * period)

    measure.__doc__ = (
        f"Amplitude (root mean square, in levels) of what repeats every {period} rows or columns in the signed "
        "difference averaged along them: power at the harmonics beyond that of the bins beside; the larger of both."
    )
    return measure


for _period in (8, 16, 32):
    register(f"grid_{_period}", kind="frame", better="lower", unit="levels")(_grid(_period))
