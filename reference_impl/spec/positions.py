"""Where a token lies, in seconds and pixels. Legend: T tokens."""

from __future__ import annotations

import torch

from reference_impl.spec.rounding import exact, f32, round_to


def video_bounds(
    shape_FHW: tuple[int, int, int], frame_rate: float, scale: tuple[int, int, int], offset: int
) -> torch.Tensor:
    """[start, end) of every token, time slowest: [3,T,2] in float32; one sample is in the first latent."""
    frames, rows, columns = shape_FHW
    out = torch.empty(3, frames * rows * columns, 2, dtype=torch.float64)
    for token in range(frames * rows * columns):
        f, rest = divmod(token, rows * columns)
        for axis, index in enumerate((f, *divmod(rest, columns))):
            for end in (0, 1):
                pixel = float((index + end) * scale[axis])
                if axis == 0:
                    pixel = float(f32(exact(max(pixel + offset - scale[0], 0.0)) / f32(exact(frame_rate))))
                out[axis, token, end] = pixel
    return out


def audio_bounds(tokens: int, scale: int, offset: int, hop: int, rate: int) -> torch.Tensor:
    """[start, end) of every token in seconds: [T,2] in float32, product and quotient rounded."""
    out = torch.empty(tokens, 2, dtype=torch.float64)
    for index in range(tokens):
        for end in (0, 1):
            frame = max((index + end) * scale + offset - scale, 0)
            out[index, end] = f32(exact(float(frame * hop)) / rate)
    return out


def midpoints(bounds: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """(start + end)/2 of the last axis, the sum rounded to ``dtype``; halving is exact."""
    return round_to(exact(bounds[..., 0]) + exact(bounds[..., 1]), dtype) / 2.0
