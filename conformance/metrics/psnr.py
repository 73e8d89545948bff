from __future__ import annotations

import math

import numpy as np

from conformance.metrics.pairs import FramePair
from conformance.metrics.registry import register


@register("psnr", kind="frame", better="higher", unit="dB")
def psnr(pair: FramePair) -> float:
    """Peak signal-to-noise ratio as scikit-image defines it, peak 255; infinite for equal frames."""
    squares = int(pair.abs_diff_counts @ np.arange(256) ** 2)
    return 10 * math.log10(255**2 * pair.abs_diff_HW3.size / squares) if squares else math.inf
