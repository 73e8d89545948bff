"""Damage in time: what a broken decoder, scheduler of frames or writer does to a video.

Each function takes the frames uint8 [B,F,H,W,3] and returns a damaged copy. The first frame, which may be an input
of the case, stays as it is.
"""

from __future__ import annotations

import numpy as np

from conformance.defects.pixels import noise


def bad_frame_middle(frames_BFHW3: np.ndarray) -> np.ndarray:
    """Gaussian noise of sigma 12 levels in the middle frame: one in F, which a mean over frames hides."""
    frames, middle = frames_BFHW3.copy(), frames_BFHW3.shape[1] // 2
    for b in range(len(frames)):
        frames[b, middle] = noise(12)(frames[b, middle])
    return frames


def frames_swapped(frames_BFHW3: np.ndarray) -> np.ndarray:
    """The middle frame and the one after it change places."""
    frames, middle = frames_BFHW3.copy(), frames_BFHW3.shape[1] // 2
    frames[:, [middle, middle + 1]] = frames[:, [middle + 1, middle]]
    return frames


def frozen_tail(frames_BFHW3: np.ndarray) -> np.ndarray:
    """The last quarter of the frames, at least one, repeats the frame before it."""
    frames = frames_BFHW3.copy()
    tail = max(1, frames.shape[1] // 4)
    frames[:, -tail:] = frames[:, -tail - 1 : -tail]
    return frames
