from __future__ import annotations

import math

import numpy as np

from conformance.metrics.pairs import AudioPair
from conformance.metrics.registry import register

PLATEAU = 0.999  # of the largest amplitude


def _share(wave_N: np.ndarray) -> float:
    size = np.abs(wave_N)
    peak = float(size.max())
    if math.isnan(peak):
        return peak
    return float((size >= PLATEAU * peak).mean()) if peak > 0 else 0.0


@register("audio.clipped_share", kind="audio", better="lower")
def clipped_share(pair: AudioPair) -> float:
    """Difference of the shares of samples at the largest amplitude (within 0.1 %): a waveform cut off flat has many,
    at whatever level."""
    mine, theirs = (_share(side) for side in pair.common)
    return abs(mine - theirs)
