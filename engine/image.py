"""Conditioning images: what the video VAE gets to see of a picture.

Legend: H W pixels, 3 colours.
"""

from __future__ import annotations

import io
import math
from fractions import Fraction

import av
import numpy as np
import torch
from torch.nn import functional

from conformance.errors import bad_field

from engine.numerics import Numerics


def through_h264(picture_HW3: np.ndarray, crf: int) -> np.ndarray:
    """A uint8 picture after one H.264 intra frame of quality ``crf`` (libx264, veryfast, yuv420p); 0 leaves it alone.

    The models were trained on frames of compressed video; a picture that never was compressed is out of distribution.
    """
    if crf == 0:
        return picture_HW3
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(1), options={"crf": str(crf), "preset": "veryfast"})
        stream.height, stream.width = picture_HW3.shape[:2]
        stream.pix_fmt = "yuv420p"
        frame = av.VideoFrame.from_ndarray(picture_HW3, format="rgb24").reformat(format="yuv420p")
        for packet in (*stream.encode(frame), *stream.encode()):
            container.mux(packet)
    buffer.seek(0)
    with av.open(buffer, "r") as container:
        return next(frame.to_ndarray(format="rgb24") for frame in container.decode(video=0))


def to_model(
    picture_HW3: np.ndarray, height: int, width: int, numerics: Numerics, dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """uint8 [H,W,3] to [1,3,1,height,width] in [-1,1]: fitted, scaled in float32, then rounded to ``dtype``."""
    unit = torch.from_numpy(picture_HW3.astype(np.float32) / 255.0)
    return (2.0 * unit - 1.0).permute(2, 0, 1)[None, :, None].to(device=device, dtype=dtype)


def cropped(picture_HW3: np.ndarray, crf: int, height: int, width: int) -> torch.Tensor:
    """A uint8 picture of any size to [1,3,1,height,width] in [-1,1], float32: as much of its middle as fits the shape.

    It passes through H.264 at its own size, of which the last row or column goes when their number is odd, then is
    resized bilinearly, without a low-pass filter, until it covers the clip, and cut. InputError for a picture that
    is too small to be encoded. Source: ``load_image_conditioning`` of ltx-pipelines 1.0.0, bit for bit.
    """
    if crf > 0:
        rows, columns = (size // 2 * 2 for size in picture_HW3.shape[:2])
        if not rows or not columns:
            raise bad_field(
                "image", "size", picture_HW3.shape[:2], "at least two rows and columns, to pass through H.264"
            )
        picture_HW3 = through_h264(np.ascontiguousarray(picture_HW3[:rows, :columns]), crf)
    rows, columns = picture_HW3.shape[:2]
    scale = max(height / rows, width / columns)
    covering = (math.ceil(rows * scale), math.ceil(columns * scale))
    pixels = torch.from_numpy(picture_HW3.astype(np.float32)).permute(2, 0, 1)[None]
    pixels = functional.interpolate(pixels, size=covering, mode="bilinear", align_corners=False)
    top, left = (covering[0] - height) // 2, (covering[1] - width) // 2
    return pixels[:, :, None, top : top + height, left : left + width] / 127.5 - 1.0
