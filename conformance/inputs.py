"""Inputs that the harness owns, so that no generator can differ in them by accident."""

from __future__ import annotations

import numpy as np
import torch

from conformance import pictures
from conformance.case import ImageCondition
from conformance.errors import bad_field


def noise_generator(seed: int) -> torch.Generator:
    """Where the noise of a request comes from, all its stages one after the other.

    Always on the CPU: a CUDA generator is another stream, and the case must mean the same on every device.
    """
    return torch.Generator("cpu").manual_seed(seed)


def draw_noise(
    generator: torch.Generator, video_BCFHW: tuple[int, ...], audio_BCLM: tuple[int, ...]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise of one stage, unpacked, fp32, video drawn before audio."""
    video = torch.randn(video_BCFHW, generator=generator, dtype=torch.float32)
    audio = torch.randn(audio_BCLM, generator=generator, dtype=torch.float32)
    return video, audio


# Seeds of what the res2s sampler injects after a step and after its half, in every stage and whatever the request's
# seed (ltx-pipelines 1.0.0, utils/samplers.py)
STEP_SEED, HALF_STEP_SEED = -1, 9999


def draw_injected(generator: torch.Generator, shape_BTC: tuple[int, ...]) -> torch.Tensor:
    """Noise that a sampler injects into a packed state, float64, as drawn. On the CPU, as above."""
    return torch.randn(shape_BTC, generator=generator, dtype=torch.float64)


def read_picture(image: ImageCondition) -> np.ndarray:
    """The conditioning image of a request at its own size, uint8 [H,W,3].

    InputError when the harness cannot draw it, or when it was given as a file and its copy in the cache is absent,
    changed, or of another size than the request says.
    """
    if not image.picture.startswith("sha256:"):
        return draw_picture(image.picture, image.height, image.width)
    picture_HW3 = pictures.read(image.picture)
    if picture_HW3.shape[:2] != (image.height, image.width):
        found = "x".join(map(str, picture_HW3.shape[:2]))
        raise bad_field("image", "size", f"{image.height}x{image.width}", f"{found}, which {image.picture} has")
    return picture_HW3


def draw_picture(name: str, height: int, width: int) -> np.ndarray:
    """A conditioning image, uint8 [H,W,3]: gradients with edges, in integer arithmetic, alike on every machine.

    InputError for a name that is not one of ``case.PICTURES``.
    """
    y, x = np.mgrid[0:height, 0:width].astype(np.int64)
    red, green = 255 * x // max(width - 1, 1), 255 * y // max(height - 1, 1)
    if name == "blocks":
        blue = 64 + 128 * ((x * 6 // width + y * 4 // height) % 2)
    elif name == "rings":
        squares = (2 * x - width) ** 2 + (2 * y - height) ** 2
        blue = 64 + 128 * (squares * 12 // (height**2 + width**2) % 2)
        red = 255 - red
    else:
        raise bad_field("image", "picture", name, "a picture that the harness draws")
    return np.stack((red, green, blue), axis=-1).astype(np.uint8)
