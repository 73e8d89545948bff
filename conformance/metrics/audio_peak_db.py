from __future__ import annotations

import math

import numpy as np

from conformance.metrics.pairs import AudioPair
from conformance.metrics.registry import register


@register("audio.peak_db", kind="audio", better="lower", unit="dB")
def peak_db(pair: AudioPair) -> float:
    """Ratio of the largest amplitudes in dB, without its sign; infinite when only one side is silent."""
    mine, theirs = (float(np.abs(side).max()) for side in pair.common)
    if mine == theirs:
        return 0.0
    if mine == 0 or theirs == 0:
        return math.inf
    return abs(20 * (math.log10(mine) - math.log10(theirs)))
