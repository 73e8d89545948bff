"""Damage to every frame: what a broken decoder, tile, kernel or codec does to pixels.

Each function takes one uint8 frame [H,W,3] and returns a damaged copy. Shapes: H, W (pixels).
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

Damage = Callable[[np.ndarray], np.ndarray]
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


def _rounded(values_HW3: np.ndarray) -> np.ndarray:
    return np.rint(values_HW3.clip(0, 255)).astype(np.uint8)


def _black(frame_HW3: np.ndarray, height: int, width: int) -> np.ndarray:
    frame = frame_HW3.copy()
    top, left = (frame.shape[0] - height) // 2, (frame.shape[1] - width) // 2
    frame[top : top + height, left : left + width] = 0
    return frame


def black_block_64(frame_HW3: np.ndarray) -> np.ndarray:
    """A black square of 64x64 pixels in the middle: a lost tile."""
    return _black(frame_HW3, 64, 64)


def black_block_1_64th(frame_HW3: np.ndarray) -> np.ndarray:
    """A black block of 1/64 of the area in the middle."""
    return _black(frame_HW3, frame_HW3.shape[0] // 8, frame_HW3.shape[1] // 8)


def seam(frame_HW3: np.ndarray) -> np.ndarray:
    """A vertical stripe of 8 pixels in the middle 40 levels too bright: tiles blended with wrong weights."""
    values, left = frame_HW3.astype(np.int16), frame_HW3.shape[1] // 2 - 4
    values[:, left : left + 8] += 40
    return _rounded(values)


def grid_rows_8(frame_HW3: np.ndarray) -> np.ndarray:
    """Every 8th row 12 levels too bright: the blocks of a decoder."""
    values = frame_HW3.astype(np.int16)
    values[::8] += 12
    return _rounded(values)


def grid_patch_16(frame_HW3: np.ndarray) -> np.ndarray:
    """Every 16th row and column 12 levels too bright: the edges of patches."""
    values = frame_HW3.astype(np.int16)
    edges = np.zeros(values.shape[:2], dtype=bool)
    edges[::16], edges[:, ::16] = True, True
    values[edges] += 12
    return _rounded(values)


def blur_1(frame_HW3: np.ndarray) -> np.ndarray:
    """Gaussian blur of sigma 1 px: lost sharpness."""
    return _rounded(gaussian_filter(frame_HW3.astype(np.float64), (1, 1, 0)))


def shift_1px(frame_HW3: np.ndarray) -> np.ndarray:
    """Everything one pixel to the right, the first column twice: an off-by-one in positions or patches."""
    return np.concatenate((frame_HW3[:, :1], frame_HW3[:, :-1]), axis=1)


def roll_half(frame_HW3: np.ndarray) -> np.ndarray:
    """The right half rolled down by 8 pixels: a shard at the wrong place."""
    frame, middle = frame_HW3.copy(), frame_HW3.shape[1] // 2
    frame[:, middle:] = np.roll(frame[:, middle:], 8, axis=0)
    return frame


def noise(sigma: float) -> Damage:
    """Gaussian noise of ``sigma`` levels, the same in every frame."""

    def add(frame_HW3: np.ndarray) -> np.ndarray:
        return _rounded(frame_HW3 + np.random.default_rng(0).normal(0, sigma, frame_HW3.shape))

    return add


def brighter_8(frame_HW3: np.ndarray) -> np.ndarray:
    """8 levels too bright: a wrong offset when latents or pixels are scaled."""
    return _rounded(frame_HW3.astype(np.int16) + 8)


def desaturated(frame_HW3: np.ndarray) -> np.ndarray:
    """Half of the colour: the mean of the frame and its luma."""
    return _rounded((frame_HW3 + (frame_HW3 @ LUMA)[..., None]) / 2)


def red_blue_swapped(frame_HW3: np.ndarray) -> np.ndarray:
    """BGR where RGB was meant."""
    return frame_HW3[..., ::-1].copy()


def flipped(frame_HW3: np.ndarray) -> np.ndarray:
    """Mirrored left to right."""
    return frame_HW3[:, ::-1].copy()


def constant(frame_HW3: np.ndarray) -> np.ndarray:
    """One flat colour: the mean of the frame."""
    return np.broadcast_to(_rounded(frame_HW3.mean(axis=(0, 1))), frame_HW3.shape).copy()


def jpeg_75(frame_HW3: np.ndarray) -> np.ndarray:
    """Through a JPEG of quality 75: output that was saved with loss."""
    buffer = io.BytesIO()
    Image.fromarray(frame_HW3).save(buffer, format="JPEG", quality=75)
    return np.array(Image.open(buffer), dtype=np.uint8)
