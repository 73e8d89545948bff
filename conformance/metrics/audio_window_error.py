from __future__ import annotations

import math

from conformance.metrics.audio_windows import rms, windows
from conformance.metrics.pairs import AudioPair
from conformance.metrics.registry import register


@register("audio.window_error", kind="audio", better="lower")
def window_error(pair: AudioPair) -> float:
    """Root mean square of the difference in the worst 5 ms, over that of the whole reference: a click, a gap. Against
    silence 0 when equal, else infinite."""
    mine, theirs = windows(pair)
    worst, norm = float(rms(mine - theirs).max()), float(rms(pair.common[1]))
    if norm == 0:
        return 0.0 if worst == 0 else math.inf * worst  # NaN stays NaN
    return worst / norm
