"""Tiled decoding: bit-equal to diffusers' tiled decoding, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from video_vae_reference import MODELS, diffusers_vae, draw, engine_vae

from conformance.errors import InputError
from engine.models.ltx2.video_vae.model import decode
from engine.models.ltx2.video_vae.tiling import Tiles, Tiling

DTYPES = (torch.float32, torch.bfloat16)
# In latents: rows, columns, frames as (size, stride), and the shape they cut.
CUTS: dict[str, tuple[Any, Any, Any, tuple[int, int, int]]] = {
    "space": ((3, 2), (2, 2), None, (1, 4, 6)),
    "columns only": ((8, 6), (3, 2), None, (1, 2, 4)),
    "three overlap": ((4, 1), (4, 2), None, (1, 3, 6)),
    "time": (None, None, (2, 1), (5, 2, 2)),
    "time, wide overlap": (None, None, (3, 1), (4, 2, 2)),
    "space and time": ((3, 2), (2, 2), (1, 1), (3, 4, 2)),
    "whole: tiles are longer": ((4, 2), (4, 2), (5, 4), (2, 3, 2)),
    "whole: tiles are as long": ((4, 2), (3, 2), (3, 1), (3, 4, 3)),
}


def tiles(pair: tuple[int, int], ratio: int) -> Tiles:
    return Tiles(size=pair[0] * ratio, stride=pair[1] * ratio)


def both(model: str, dtype: torch.dtype, cut: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tiled by the engine, tiled by diffusers, in one piece."""
    rows, columns, frames, shape = CUTS[cut]
    vae, reference = engine_vae(model, dtype), diffusers_vae(model, dtype)
    latents = draw(1, vae.config.latent_channels, *shape).to(dtype)
    space, time = vae.config.spatial_compression_ratio, vae.config.temporal_compression_ratio
    if rows:
        reference.enable_tiling(
            tile_sample_min_height=rows[0] * space,
            tile_sample_stride_height=rows[1] * space,
            tile_sample_min_width=columns[0] * space,
            tile_sample_stride_width=columns[1] * space,
        )
    if frames:
        reference.use_framewise_decoding = True
        reference.tile_sample_min_num_frames = frames[0] * time
        reference.tile_sample_stride_num_frames = frames[1] * time
    tiling = Tiling(
        space=(tiles(rows, space), tiles(columns, space)) if rows else None,
        time=tiles(frames, time) if frames else None,
    )
    expected = reference.decode(latents, return_dict=False)[0]
    return decode(vae, latents, tiling), expected, decode(vae, latents, None)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("model", "cut"),  # reflection cannot pad the last tile of one row
    [(model, cut) for model in MODELS for cut in CUTS if (model, cut) != ("ltx-2", "three overlap")],
)
def test_tiled_decode_is_bitwise_equal(model: str, dtype: torch.dtype, cut: str) -> None:
    ours, expected, whole = both(model, dtype, cut)
    assert ours.shape == whole.shape
    assert torch.equal(ours, expected)
    assert torch.equal(ours, whole) == cut.startswith("whole")


def test_no_tiles_is_the_whole() -> None:
    vae = engine_vae("other", torch.float32)
    latents = draw(1, 16, 3, 4, 4)
    assert torch.equal(decode(vae, latents, Tiling(space=None, time=None)), decode(vae, latents, None))


def test_later_tiles_of_time_are_one_frame_late() -> None:
    """With no overlap a frame of the second tile is what the frame before it is in the tile decoded alone."""
    vae = engine_vae("other", torch.float32)  # four frames a latent
    latents = draw(1, 16, 4, 2, 2)
    time = Tiles(size=8, stride=8)
    out = decode(vae, latents, Tiling(space=None, time=time))
    second = decode(vae, latents[:, :, 2:], None)  # its first frame is frame 8 of the clip
    assert torch.equal(out[:, :, 9:], second[:, :, :-1])


@pytest.mark.parametrize(
    ("axis", "pair", "message"),
    [
        ("time", (12, 8), "tiling of time: 'size' is 12; expected a positive multiple of 8"),
        ("time", (16, 0), "tiling of time: 'stride' is 0; expected a positive multiple of 8"),
        ("rows", (80, 64), "tiling of rows: 'size' is 80; expected a positive multiple of 32"),
        ("columns", (64, 48), "tiling of columns: 'stride' is 48; expected a positive multiple of 32"),
        ("columns", (64, 96), "tiling of columns: 'stride' is 96; expected at most the size, 64"),
        ("rows", (96, 64), "tiling of rows: 'smallest tile' is 1; expected at least two latents"),
        ("columns", (32, 32), "tiling of columns: 'smallest tile' is 1; expected at least two latents"),
    ],
)
def test_refused(axis: str, pair: tuple[int, int], message: str) -> None:
    fine = {"rows": (160, 160), "columns": (128, 64), "time": (16, 8)} | {axis: pair}
    rows, columns, time = (Tiles(size=size, stride=stride) for size, stride in fine.values())
    with pytest.raises(InputError, match=message):
        decode(engine_vae("ltx-2", torch.float32), draw(1, 128, 1, 5, 6), Tiling(space=(rows, columns), time=time))
