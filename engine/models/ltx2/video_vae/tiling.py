"""Decoding in overlapping tiles whose overlaps are blended linearly, the way diffusers 0.42 does it.

Sizes are in pixels and frames of the decoded clip. Legend: B batch, C channels, F frames, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from conformance.errors import bad_field
from engine.models.ltx2.video_vae.config import VideoVAEConfig

_F, _H, _W = 2, 3, 4
_WHOLE = (slice(None),)
Decode = Callable[[torch.Tensor], torch.Tensor]
# decodes tiles of latents, somewhere, and gives all of them back in their order
Spread = Callable[[Decode, Sequence[torch.Tensor]], Iterator[torch.Tensor]]


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


@dataclass(frozen=True, kw_only=True)
class _Cuts:
    """Runs of latents along each axis; tiles go frames, rows, columns, the last fastest."""

    frames: tuple[slice, ...]
    rows: tuple[slice, ...]
    columns: tuple[slice, ...]


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
    whole = not _cuts_space(tiling, config, shape_FHW[1:])
    for name, tiles, length in (("rows", rows, shape_FHW[1]), ("columns", columns, shape_FHW[2])):
        smallest = length
        if tiles is not None and not whole:
            size, stride = (value // config.spatial_compression_ratio for value in (tiles.size, tiles.stride))
            smallest = min(size, length - (length - 1) // stride * stride)
        if smallest < 2:
            raise bad_field(
                f"tiling of {name}", "smallest tile", smallest, "at least two latents, to be padded by reflection"
            )


def one_by_one(decode: Decode, tiles: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
    """Every tile here, when it is asked for."""
    return map(decode, tiles)


def tiled(
    decode: Decode, latents_BCFHW: torch.Tensor, tiling: Tiling, config: VideoVAEConfig, spread: Spread = one_by_one
) -> torch.Tensor:
    """``decode`` applied tile by tile: [B,C,F,H,W] -> pixels, as of the whole but for the overlaps.

    A tile of time is one latent longer than its size and loses its last frame. Its first latent stands for the one
    frame that it ends with, so that from the second tile on what is shown is one frame late: so does diffusers.
    """
    cuts = _cuts(tiling, config, tuple(latents_BCFHW.shape[_F:]))
    pieces = [
        latents_BCFHW[:, :, frames, rows, columns]
        for frames in cuts.frames
        for rows in cuts.rows
        for columns in cuts.columns
    ]
    decoded = iter(spread(decode, pieces))
    tiles = tiling.time
    if tiles is None or cuts.frames == _WHOLE:
        return _spatial(decoded, cuts, latents_BCFHW, tiling, config)
    ratio = config.temporal_compression_ratio
    parts: list[torch.Tensor] = []
    shown: list[torch.Tensor] = []
    for _ in cuts.frames:
        part = _spatial(decoded, cuts, latents_BCFHW, tiling, config)
        if parts:
            part = _blend(parts[-1], part[:, :, :-1], tiles.size - tiles.stride, _F)
        shown.append(part[:, :, : tiles.stride + (0 if parts else 1)])
        parts.append(part)
    return torch.cat(shown, dim=_F)[:, :, : (latents_BCFHW.shape[_F] - 1) * ratio + 1]


def _cuts(tiling: Tiling, config: VideoVAEConfig, shape_FHW: tuple[int, ...]) -> _Cuts:
    """Where latents of a shape are cut."""
    time = config.temporal_compression_ratio
    frames: tuple[slice, ...] = _WHOLE
    if tiling.time is not None and shape_FHW[0] > tiling.time.size // time:
        size, stride = tiling.time.size // time, tiling.time.stride // time
        frames = tuple(slice(start, start + size + 1) for start in range(0, shape_FHW[0], stride))
    if not _cuts_space(tiling, config, shape_FHW[1:]):
        return _Cuts(frames=frames, rows=_WHOLE, columns=_WHOLE)
    assert tiling.space is not None
    rows, columns = (
        tuple(
            slice(start, start + tiles.size // config.spatial_compression_ratio)
            for start in range(0, length, tiles.stride // config.spatial_compression_ratio)
        )
        for tiles, length in zip(tiling.space, shape_FHW[1:], strict=True)
    )
    return _Cuts(frames=frames, rows=rows, columns=columns)


def _cuts_space(tiling: Tiling, config: VideoVAEConfig, shape_HW: tuple[int, ...]) -> bool:
    ratio = config.spatial_compression_ratio
    return tiling.space is not None and any(
        length > tiles.size // ratio for length, tiles in zip(shape_HW, tiling.space, strict=True)
    )


def _spatial(
    decoded: Iterator[torch.Tensor], cuts: _Cuts, latents_BCFHW: torch.Tensor, tiling: Tiling, config: VideoVAEConfig
) -> torch.Tensor:
    """The next tiles of rows and columns as one."""
    if tiling.space is None or cuts.rows == _WHOLE:
        return next(decoded)
    ratio = config.spatial_compression_ratio
    rows, columns = tiling.space
    height, width = latents_BCFHW.shape[_H:]
    above: list[torch.Tensor] = []
    bands: list[torch.Tensor] = []
    for _ in cuts.rows:
        line: list[torch.Tensor] = []
        for _ in cuts.columns:
            tile = next(decoded)
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
