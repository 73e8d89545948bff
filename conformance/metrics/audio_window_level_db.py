from __future__ import annotations

import numpy as np

from conformance.metrics.audio_windows import SILENCE, rms, windows
from conformance.metrics.pairs import AudioPair
from conformance.metrics.registry import register


@register("audio.window_level_db", kind="audio", better="lower", unit="dB")
def window_level_db(pair: AudioPair) -> float:
    """Largest difference of level of any 5 ms, in dB; levels below -60 dB of full scale count as -60. Sees a dropout
    where the waveforms have drifted apart."""
    mine, theirs = (20 * np.log10(np.maximum(rms(side), SILENCE)) for side in windows(pair))
    return float(np.abs(mine - theirs).max())
