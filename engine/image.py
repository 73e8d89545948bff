"""Conditioning images: what the video VAE gets to see of a picture.

Legend: H W pixels, 3 colours.
"""

from __future__ import annotations

import io
from fractions import Fraction

import av
import numpy as np
import torch

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
