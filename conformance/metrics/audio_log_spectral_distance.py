from __future__ import annotations

import numpy as np

from conformance.metrics.pairs import AudioPair
from conformance.metrics.registry import register

WINDOW, HOP = 1024, 256
# Added to the power, relative to a full-scale sine in one bin: bins below -100 dB count as silence.
FLOOR = 1e-10 * (WINDOW / 4) ** 2


def _log_power_db(wave_N: np.ndarray) -> np.ndarray:
    """Power spectrogram in dB [windows, WINDOW // 2 + 1]; the end is padded with zeros to a whole hop."""
    hops = max(0, -(-(len(wave_N) - WINDOW) // HOP))
    padded = np.pad(wave_N, (0, WINDOW + hops * HOP - len(wave_N)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    return 10 * np.log10(np.square(np.abs(np.fft.rfft(windows * hann))) + FLOOR)


@register("audio.log_spectral_distance", kind="audio", better="lower", unit="dB")
def log_spectral_distance(pair: AudioPair) -> float:
    """Log-spectral distance (Gray and Markel 1976): root mean square over frequency of the difference of the log
    power spectra, averaged over Hann windows of 1024 samples every 256."""
    mine, theirs = (_log_power_db(side) for side in pair.common)
    return float(np.sqrt(np.square(mine - theirs).mean(axis=-1)).mean())
