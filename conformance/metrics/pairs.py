"""What frame and audio metrics are given: two sides of one frame or channel, and what several metrics share.

Shapes: H, W (pixels), N (audio samples).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from conformance.errors import InputError

if TYPE_CHECKING:
    from conformance.metrics.clip import ClipScorer

SSIM_WINDOW = 7
TILE = 32


@dataclass(frozen=True, eq=False)
class FramePair:
    """Two uint8 frames [H,W,3] of equal shape, and the CLIP model where there is one."""

    candidate: np.ndarray
    reference: np.ndarray
    clip: ClipScorer | None = None

    @cached_property
    def abs_diff_HW3(self) -> np.ndarray:
        """Absolute difference in levels 0..255, int16."""
        return np.abs(self.candidate.astype(np.int16) - self.reference.astype(np.int16))

    @cached_property
    def ssim(self) -> tuple[float, np.ndarray]:
        """skimage's mean SSIM and its map [H-6,W-6], averaged over channels, where the window fits the frame.

        InputError when a side of the frame is shorter than the window.
        """
        from skimage.metrics import structural_similarity

        height, width = self.candidate.shape[:2]
        if min(height, width) < SSIM_WINDOW:
            raise InputError(f"ssim: a frame is {height}x{width}; expected at least {SSIM_WINDOW}x{SSIM_WINDOW} pixels")
        mean, map_HW3 = structural_similarity(
            self.candidate, self.reference, channel_axis=-1, data_range=255, full=True
        )
        pad = SSIM_WINDOW // 2
        return float(mean), map_HW3[pad : height - pad, pad : width - pad].mean(axis=-1)


def tile_means(values_HW: np.ndarray, size: int = TILE) -> np.ndarray:
    """Mean of each ``size`` x ``size`` tile, counted from the top left; tiles at the far edges may be partial."""
    height, width = values_HW.shape
    rows, columns = np.arange(0, height, size), np.arange(0, width, size)
    sums = np.add.reduceat(np.add.reduceat(values_HW.astype(np.float64), rows, axis=0), columns, axis=1)
    counts = np.outer(np.minimum(rows + size, height) - rows, np.minimum(columns + size, width) - columns)
    return sums / counts


@dataclass(frozen=True, eq=False)
class AudioPair:
    """One channel of two waveforms, float32 [N] each (the lengths may differ), at ``rate`` Hz."""

    candidate: np.ndarray
    reference: np.ndarray
    rate: int

    @cached_property
    def common(self) -> tuple[np.ndarray, np.ndarray]:
        """Both sides in float64, cut to the shorter one. InputError when a side is empty."""
        length = min(len(self.candidate), len(self.reference))
        if not length:
            raise InputError(f"audio: {len(self.candidate)} and {len(self.reference)} samples; expected at least 1")
        return self.candidate[:length].astype(np.float64), self.reference[:length].astype(np.float64)
