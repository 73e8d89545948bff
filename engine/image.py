"""Conditioning images: what the video VAE gets to see of a picture.

Legend: H W pixels, 3 colours.
"""

from __future__ import annotations

import io
import math
from fractions import Fraction

import av
import numpy as np
import PIL.Image
import torch
from torch.nn import functional

from conformance.errors import bad_field
from engine.numerics import Numerics


def through_h264(picture_HW3: np.ndarray, crf: int) -> np.ndarray:
    """A uint8 picture after one H.264 intra frame of quality ``crf`` (libx264, veryfast, yuv420p); 0 leaves it alone.

    The models were trained on frames of compressed video; a picture that never was compressed is out of distribution.
    The encoding has no odd sizes: the last row or column goes. InputError when nothing is left.
    """
    if crf == 0:
        return picture_HW3
    height, width = (size // 2 * 2 for size in picture_HW3.shape[:2])
    if not height or not width:
        size = picture_HW3.shape[:2]
        raise bad_field("request.image", "height, width", size, "at least 2 pixels each, to pass through H.264")
    picture_HW3 = np.ascontiguousarray(picture_HW3[:height, :width])
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(1), options={"crf": str(crf), "preset": "veryfast"})
        stream.height, stream.width = height, width
        stream.pix_fmt = "yuv420p"
        frame = av.VideoFrame.from_ndarray(picture_HW3, format="rgb24").reformat(format="yuv420p")
        for packet in (*stream.encode(frame), *stream.encode()):
            container.mux(packet)
    buffer.seek(0)
    with av.open(buffer, "r") as container:
        return next(frame.to_ndarray(format="rgb24") for frame in container.decode(video=0))


def fitted(picture_HW3: np.ndarray, height: int, width: int, numerics: Numerics, device: torch.device) -> torch.Tensor:
    """A uint8 picture of any size to [1,3,1,height,width] in [-1,1], float32 on ``device``, as ``image_fit`` says."""
    if numerics.image_fit == "cropped":
        return _cropped(picture_HW3, height, width, device)
    unit = torch.from_numpy(_stretched(picture_HW3, height, width).astype(np.float32) / 255.0)
    return (2.0 * unit - 1.0).permute(2, 0, 1)[None, :, None].to(device)


def _stretched(picture_HW3: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resized whatever its shape: bilinearly with antialiasing, in bytes.

    Source: pillow's ``BILINEAR``, which diffusers' image-to-video pipeline (0.42) asks for after the encoding.
    """
    picture = PIL.Image.fromarray(picture_HW3)
    return np.asarray(picture.resize((width, height), PIL.Image.Resampling.BILINEAR))


def _cropped(picture_HW3: np.ndarray, height: int, width: int, device: torch.device) -> torch.Tensor:
    """As much of the middle as fits the shape: resized bilinearly, without a low-pass filter, until it covers the clip.

    On the device: weights of an interpolation differ between devices in their last bits.

    Source: ``load_image_conditioning`` of ltx-pipelines 1.0.0, bit for bit.
    """
    rows, columns = picture_HW3.shape[:2]
    scale = max(height / rows, width / columns)
    covering = (math.ceil(rows * scale), math.ceil(columns * scale))
    pixels = torch.from_numpy(picture_HW3.astype(np.float32)).to(device).permute(2, 0, 1)[None]
    pixels = functional.interpolate(pixels, size=covering, mode="bilinear", align_corners=False)
    top, left = (covering[0] - height) // 2, (covering[1] - width) // 2
    return pixels[:, :, None, top : top + height, left : left + width] / 127.5 - 1.0
