"""Frames as bytes."""

from __future__ import annotations

import numpy as np

from engine.numerics import Numerics


def to_bytes(frames: np.ndarray, numerics: Numerics) -> np.ndarray:
    """Float32 values in [0,1] of any shape as uint8.

    Truncation after a bf16 product, which official 1.0.0 does in bf16, gives the same byte for every bf16 value.
    """
    scaled = frames * 255
    return (np.round(scaled) if numerics.frame_bytes == "rounded" else scaled).astype(np.uint8)
