"""Images and audio on disk, lossless or refused: nothing is resized, converted or cut on the way in.

Shapes: H, W (pixels), C (channels), N (audio samples).
"""

from __future__ import annotations

import io
import warnings
import wave
from pathlib import Path

import numpy as np
from PIL import Image

from conformance.errors import InputError
from conformance.jsonio import write_atomic

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
LOSSY_SUFFIXES = (".jpg", ".jpeg", ".webp")
HEAT_FULL_SCALE = 64.0
_EXPECTED = "expected 8-bit RGB"
IHDR_BIT_DEPTH = 24  # offset of the bit depth in a PNG: signature 8, chunk length 4, type 4, width 4, height 4


def read_image(path: Path) -> np.ndarray:
    """A PNG, JPEG or WebP image as uint8 [H,W,3].

    InputError names the path for anything but one whole 8-bit RGB image: other modes and bit depths, transparency,
    animations, damaged files and sizes beyond Pillow's limit against decompression bombs.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as image:
                image.verify()
            with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as image:
                found = _not_rgb(image, data)
                if found:
                    raise InputError(f"{path}: image is {found}; {_EXPECTED}")
                return np.array(image.convert("RGB"), dtype=np.uint8)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InputError(f"{path}: image is too large; expected at most {Image.MAX_IMAGE_PIXELS} pixels") from None
    except Image.UnidentifiedImageError:
        raise InputError(f"{path}: not a PNG, JPEG or WebP image") from None
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged image ({error})") from None


def _not_rgb(image: Image.Image, data: bytes) -> str:
    """What makes an image more or less than 8-bit RGB, or nothing. A palette without transparency is RGB."""
    if getattr(image, "n_frames", 1) > 1:
        return f"animated ({image.n_frames} frames)"  # type: ignore[attr-defined]
    depth = data[IHDR_BIT_DEPTH] if image.format == "PNG" else 8
    if depth == 16 or image.mode.startswith("I"):
        return f"16-bit (mode {image.mode})"  # Pillow would drop the low bits of a 16-bit RGB PNG
    if image.mode in ("1", "L"):
        return f"greyscale (mode {image.mode})"
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        return f"transparent (mode {image.mode})"
    return "" if image.mode in ("RGB", "P") else f"of mode {image.mode}"


def write_png(path: Path, image_HW3: np.ndarray) -> None:
    """Write uint8 [H,W,3] as PNG: the whole file or none. ValueError for another dtype or shape."""
    if image_HW3.dtype != np.uint8 or image_HW3.ndim != 3 or image_HW3.shape[2] != 3:
        raise ValueError(f"{path}: image is {image_HW3.dtype} {list(image_HW3.shape)}; expected uint8 [H,W,3]")
    buffer = io.BytesIO()
    Image.fromarray(image_HW3).save(buffer, format="PNG")
    write_atomic(path, buffer.getvalue())


def cubehelix() -> np.ndarray:
    """256 colours [256,3] uint8 from black to white whose perceived brightness rises steadily (Green 2011,
    "A colour scheme for the display of astronomical intensity images"; start 0.5, rotations -1.5, hue 1, gamma 1)."""
    level = np.linspace(0.0, 1.0, 256)
    angle = 2 * np.pi * (0.5 / 3 + 1 - 1.5 * level)
    amplitude = level * (1 - level) / 2
    basis = np.array([[-0.14861, 1.78277], [-0.29227, -0.90649], [1.97294, 0.0]])
    rgb = level[:, None] + amplitude[:, None] * (np.stack([np.cos(angle), np.sin(angle)], axis=-1) @ basis.T)
    return np.round(255 * rgb.clip(0.0, 1.0)).astype(np.uint8)


def heat_map(a_HW3: np.ndarray, b_HW3: np.ndarray) -> np.ndarray:
    """Absolute difference of two uint8 images, averaged over channels, as colours uint8 [H,W,3].

    Black is equal; the scale is fixed, so that maps compare: white is 64 levels or more.
    ValueError when the shapes differ.
    """
    if a_HW3.shape != b_HW3.shape:
        raise ValueError(f"heat map of {list(a_HW3.shape)} and {list(b_HW3.shape)}; expected equal shapes")
    difference_HW = np.abs(a_HW3.astype(np.int16) - b_HW3.astype(np.int16)).mean(axis=-1)
    steps_HW = difference_HW.clip(max=HEAT_FULL_SCALE) * (255 / HEAT_FULL_SCALE)
    return cubehelix()[steps_HW.astype(np.uint8)]


def write_wav(path: Path, audio_CN: np.ndarray, rate: int) -> None:
    """Write float [C,N] in [-1, 1] at ``rate`` Hz as 16-bit PCM, clipped. For listening: judging uses the floats.

    ValueError for another shape or for values that are not finite.
    """
    if audio_CN.ndim != 2 or not np.isfinite(audio_CN).all():
        raise ValueError(f"{path}: audio is {audio_CN.dtype} {list(audio_CN.shape)}; expected finite [C,N]")
    pcm_NC = np.round(audio_CN.T.astype(np.float64).clip(-1.0, 1.0) * 32767).astype("<i2")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(audio_CN.shape[0])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(pcm_NC.tobytes())
    write_atomic(path, buffer.getvalue())
