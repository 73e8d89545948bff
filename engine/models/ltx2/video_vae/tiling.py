"""Decoding in overlapping tiles whose overlaps are blended linearly, the way diffusers 0.42 does it.

Sizes are in pixels and frames of the decoded clip. Legend: B batch, C channels, F frames, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from conformance.errors import bad_field
from engine.models.ltx2.video_vae.config import VideoVAEConfig

_F, _H, _W = 2, 3, 4
Decode = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """Tiles of ``size`` along one axis, one every ``stride``; ``size - stride`` is what two neighbours share."""

    size: int
    stride: int


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """space: tiles of rows and of columns; they are used where either is longer than its tile.

    time: tiles of frames, used where the clip is longer than one. None leaves space or time whole.
    """

    space: tuple[Tiles, Tiles] | None
    time: Tiles | None


def check_tiling(tiling: Tiling, config: VideoVAEConfig, shape_FHW: tuple[int, int, int]) -> None:
    """InputError when a tile is no whole number of latents, or its stride is longer than the tile.

    Also when a decoder that pads by reflection would get a tile of one row or column.
    """
    rows, columns = tiling.space or (None, None)
    for name, tiles, ratio in (
        ("time", tiling.time, config.temporal_compression_ratio),
        ("rows", rows, config.spatial_compression_ratio),
        ("columns", columns, config.spatial_compression_ratio),
    ):
        if tiles is None:
            continue
        for field, value in (("size", tiles.size), ("stride", tiles.stride)):
            if value <= 0 or value % ratio:
                raise bad_field(f"tiling of {name}", field, value, f"a positive multiple of {ratio}")
        if tiles.stride > tiles.size:
            raise bad_field(f"tiling of {name}", "stride", tiles.stride, f"at most the size, {tiles.size}")
    if config.decoder_spatial_padding_mode != "reflect":
        return
    whole = not _cuts(tiling, config, shape_FHW[1:])
    for name, tiles, length in (("rows", rows, shape_FHW[1]), ("columns", columns, shape_FHW[2])):
        smallest = length
        if tiles is not None and not whole:
            size, stride = (value // config.spatial_compression_ratio for value in (tiles.size, tiles.stride))
            smallest = min(size, length - (length - 1) // stride * stride)
        if smallest < 2:
            raise bad_field(
                f"tiling of {name}", "smallest tile", smallest, "at least two latents, to be padded by reflection"
            )


def tiled(decode: Decode, latents_BCFHW: torch.Tensor, tiling: Tiling, config: VideoVAEConfig) -> torch.Tensor:
    """``decode`` applied tile by tile: [B,C,F,H,W] -> pixels, as of the whole but for the overlaps.

    A tile of time is one latent longer than its size and loses its last frame. Its first latent stands for the one
    frame that it ends with, so that from the second tile on what is shown is one frame late: so does diffusers.
    """
    tiles = tiling.time
    ratio = config.temporal_compression_ratio
    if tiles is None or latents_BCFHW.shape[_F] <= tiles.size // ratio:
        return _spatial(decode, latents_BCFHW, tiling, config)
    frames = latents_BCFHW.shape[_F]
    parts: list[torch.Tensor] = []
    shown: list[torch.Tensor] = []
    for start in range(0, frames, tiles.stride // ratio):
        part = _spatial(decode, latents_BCFHW[:, :, start : start + tiles.size // ratio + 1], tiling, config)
        if parts:
            part = _blend(parts[-1], part[:, :, :-1], tiles.size - tiles.stride, _F)
        shown.append(part[:, :, : tiles.stride + (0 if parts else 1)])
        parts.append(part)
    return torch.cat(shown, dim=_F)[:, :, : (frames - 1) * ratio + 1]


def _cuts(tiling: Tiling, config: VideoVAEConfig, shape_HW: tuple[int, ...]) -> bool:
    ratio = config.spatial_compression_ratio
    return tiling.space is not None and any(
        length > tiles.size // ratio for length, tiles in zip(shape_HW, tiling.space, strict=True)
    )


def _spatial(decode: Decode, latents_BCFHW: torch.Tensor, tiling: Tiling, config: VideoVAEConfig) -> torch.Tensor:
    if tiling.space is None or not _cuts(tiling, config, tuple(latents_BCFHW.shape[_H:])):
        return decode(latents_BCFHW)
    ratio = config.spatial_compression_ratio
    rows, columns = tiling.space
    height, width = latents_BCFHW.shape[_H:]
    above: list[torch.Tensor] = []
    bands: list[torch.Tensor] = []
    for top in range(0, height, rows.stride // ratio):
        line: list[torch.Tensor] = []
        for left in range(0, width, columns.stride // ratio):
            bottom, right = top + rows.size // ratio, left + columns.size // ratio
            tile = decode(latents_BCFHW[:, :, :, top:bottom, left:right])
            # neighbours come blended already, and the one above goes first: both show in the corners
            if above:
                tile = _blend(above[len(line)], tile, rows.size - rows.stride, _H)
            if line:
                tile = _blend(line[-1], tile, columns.size - columns.stride, _W)
            line.append(tile)
        bands.append(torch.cat([tile[..., : rows.stride, : columns.stride] for tile in line], dim=_W))
        above = line
    return torch.cat(bands, dim=_H)[..., : height * ratio, : width * ratio]


def _blend(before: torch.Tensor, after: torch.Tensor, overlap: int, dim: int) -> torch.Tensor:
    """``after``, its first ``overlap`` positions along ``dim`` faded in from the last ones of ``before``.

    Products and sum are rounded to the tensors' dtype one by one; the weights are float64 rounded to float32.
    """
    extent = min(before.shape[dim], after.shape[dim], overlap)
    shape = [1] * after.ndim
    shape[dim] = extent
    ramp = (torch.arange(extent, dtype=torch.float64, device=after.device) / max(extent, 1)).view(shape)
    old = before.narrow(dim, before.shape[dim] - extent, extent)
    new = after.narrow(dim, 0, extent)
    faded = (old.float() * (1 - ramp).float()).to(after.dtype) + (new.float() * ramp.float()).to(after.dtype)
    return torch.cat([faded, after.narrow(dim, extent, after.shape[dim] - extent)], dim=dim)
