from __future__ import annotations

from conformance.metrics.pairs import AudioPair
from conformance.metrics.registry import register


@register("audio.duration_s", kind="audio", better="lower", unit="s")
def duration_s(pair: AudioPair) -> float:
    """Difference of the durations, without its sign."""
    return abs(len(pair.candidate) - len(pair.reference)) / pair.rate
