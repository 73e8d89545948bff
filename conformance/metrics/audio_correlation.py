from __future__ import annotations

import math

from conformance.metrics.pairs import AudioPair
from conformance.metrics.registry import register


@register("audio.correlation", kind="audio", better="higher")
def correlation(pair: AudioPair) -> float:
    """Pearson correlation of the waveforms; when one has no variation 1 for equal waveforms, else 0."""
    a, b = pair.common
    if (a == b).all():
        return 1.0
    if a.min() == a.max() or b.min() == b.max():
        return 0.0
    a, b = a - a.mean(), b - b.mean()
    aa, bb = float(a @ a), float(b @ b)
    value = float(a @ b) / math.sqrt(aa * bb)
    return value if math.isnan(value) else max(-1.0, min(1.0, value))
