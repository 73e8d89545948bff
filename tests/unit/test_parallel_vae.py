"""Tiles over ranks: bit for bit the tiled decode of one device, whatever the tiles and however many ranks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.distributed as dist
from parallel_cases import case, on_ranks, single
from ranks import run_ranks
from test_engine_video_vae_tiling import CUTS, tiles
from video_vae_reference import draw, engine_vae

from conformance.defects import parallel as defects
from conformance.tiling import Tiles, VideoTiling
from engine.models.ltx2.video_vae.model import decode
from engine.models.ltx2.video_vae.tiling import Tiling
from engine.parallel import vae as parallel_vae

# of 1, 3, 4 and 6 tiles
SOME = ("whole: tiles are longer", "columns only", "space", "time", "space and time")


def cut(model: str, name: str, dtype: torch.dtype) -> tuple[torch.Tensor, Tiling]:
    rows, columns, frames, shape = CUTS[name]
    config = engine_vae(model, dtype).config
    space, time = config.spatial_compression_ratio, config.temporal_compression_ratio
    tiling = Tiling(
        space=(tiles(rows, space), tiles(columns, space)) if rows else None,
        time=tiles(frames, time) if frames else None,
    )
    return draw(1, config.latent_channels, *shape).to(dtype), tiling


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("model", ["ltx-2.3", "other"])
def test_bitwise_equal(model: str, dtype: torch.dtype, world: int) -> None:
    vae, cuts = engine_vae(model, dtype), [cut(model, name, dtype) for name in SOME]

    @torch.inference_mode()
    def run(rank: int) -> tuple[list[torch.Tensor], int]:
        calls = []
        vae.decoder.register_forward_hook(lambda *inputs: calls.append(1))
        spread = parallel_vae.spread_over(dist.group.WORLD)
        return [decode(vae, latents, tiling, spread) for latents, tiling in cuts], len(calls)

    with torch.inference_mode():
        expected = [decode(vae, latents, tiling) for latents, tiling in cuts]
    results = run_ranks(world, run)
    for ours, _ in results:
        assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True))
    # each tile was decoded once
    calls = [count for _, count in results]
    counts = [count_tiles(vae, *each) for each in cuts]
    assert calls == [sum(-(-(count - rank) // world) for count in counts if count > rank) for rank in range(world)]


def count_tiles(vae: torch.nn.Module, latents: torch.Tensor, tiling: Tiling) -> int:
    seen = []
    handle = vae.decoder.register_forward_hook(lambda *inputs: seen.append(1))
    decode(vae, latents, tiling)
    handle.remove()
    return len(seen)


TILES = VideoTiling(rows=Tiles(size=64, stride=64), columns=Tiles(size=64, stride=64), frames=None)


def test_a_case_decodes_its_tiles_over_all_ranks() -> None:
    """The ranks of ulysses2, none of which is along an axis of the decoder."""
    asked = case("ltx-2.3", "fp32", "ulysses2", height=64, width=192, vae_tiling=TILES)
    whole, tiled = single(replace(asked, request=replace(asked.request, vae_tiling=None))), single(asked)
    assert not np.array_equal(whole.frames, tiled.frames)
    assert all(output.equals(tiled) for output in on_ranks(asked))
    for output in on_ranks(asked, defects.tiles_as_they_come):
        assert not np.array_equal(output.frames, tiled.frames)


def test_tiles_given_back_in_another_order_are_seen() -> None:
    vae = engine_vae("other", torch.float32)
    latents, tiling = cut("other", "time", torch.float32)

    def run(rank: int) -> torch.Tensor:
        with pytest.MonkeyPatch.context() as patch:
            for target, attribute, value in defects.tiles_as_they_come.replacements:
                patch.setattr(target, attribute, value)
            return decode(vae, latents, tiling, parallel_vae.spread_over(dist.group.WORLD))

    expected = decode(vae, latents, tiling)
    assert not any(torch.equal(ours, expected) for ours in run_ranks(2, run))


def test_a_group_of_some_ranks() -> None:
    """Sources count in the whole world, places in the group."""
    vae = engine_vae("other", torch.float32)
    latents, tiling = cut("other", "space", torch.float32)

    @torch.inference_mode()
    def run(rank: int) -> torch.Tensor:
        groups = [dist.new_group([0, 1]), dist.new_group([2, 3])]
        return decode(vae, latents + rank // 2, tiling, parallel_vae.spread_over(groups[rank // 2]))

    with torch.inference_mode():
        expected = [decode(vae, latents + half, tiling) for half in (0, 1)]
    for rank, ours in enumerate(run_ranks(4, run)):
        assert torch.equal(ours, expected[rank // 2])
