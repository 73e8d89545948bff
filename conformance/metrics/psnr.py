from __future__ import annotations

import numpy as np

from conformance.metrics.pairs import FramePair
from conformance.metrics.registry import register


@register("psnr", kind="frame", better="higher", unit="dB")
def psnr(pair: FramePair) -> float:
    """Peak signal-to-noise ratio as scikit-image defines it, peak 255; infinite for equal frames."""
    from skimage.metrics import peak_signal_noise_ratio

    with np.errstate(divide="ignore"):
        return float(peak_signal_noise_ratio(pair.reference, pair.candidate, data_range=255))
