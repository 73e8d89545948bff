"""Decoding of diffusers' video VAE (0.42.1), tapped as a whole, in the tiles that a request asks for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from conformance.generator import Probe
from conformance.tiling import VideoTiling


@contextmanager
def decoding(vae: Any, tiling: VideoTiling | None, probe: Probe) -> Iterator[None]:
    """While open, ``vae.decode`` is tapped and cuts what it decodes; the encoder is never cut."""
    decode = vae.decode

    def tapped(latents_BCFHW: Any, *args: Any, **kwargs: Any) -> Any:
        probe.tap("latents/decode/video", latents_BCFHW)
        with _cut(vae, tiling):
            result = decode(latents_BCFHW, *args, **kwargs)
        probe.tap("vae/frames", result[0])
        return result

    vae.decode = tapped
    try:
        yield
    finally:
        del vae.decode


@contextmanager
def _cut(vae: Any, tiling: VideoTiling | None) -> Iterator[None]:
    if tiling is None:
        yield
        return
    names = ("use_tiling", "use_framewise_decoding", *(f"tile_sample_{what}" for what in _SIZES))
    before = {name: getattr(vae, name) for name in names}
    rows, columns, frames = tiling.rows, tiling.columns, tiling.frames
    if rows is not None and columns is not None:
        vae.enable_tiling(
            tile_sample_min_height=rows.size,
            tile_sample_stride_height=rows.stride,
            tile_sample_min_width=columns.size,
            tile_sample_stride_width=columns.stride,
        )
    if frames is not None:
        vae.use_framewise_decoding = True
        vae.tile_sample_min_num_frames, vae.tile_sample_stride_num_frames = frames.size, frames.stride
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(vae, name, value)


_SIZES = tuple(f"{what}_{axis}" for what in ("min", "stride") for axis in ("height", "width", "num_frames"))
