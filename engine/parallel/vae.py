"""Tiles of a video VAE over ranks: each decodes some, all have all, and blend them as one device does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.distributed as dist

from engine.models.ltx2.video_vae.tiling import Decode, Spread


def spread_over(group: dist.ProcessGroup) -> Spread:
    """Tile number i is decoded by rank i modulo the ranks of ``group``; ranks without one only receive.

    Every rank of the group decodes the same latents with it: ``video_vae.model.decode(vae, latents, tiling, spread)``.
    As many tiles as there are ranks are held at a time beside those that are still to be blended.
    """

    def spread(decode: Decode, tiles: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
        ranks, mine = dist.get_world_size(group), dist.get_rank(group)
        for first in range(0, len(tiles), ranks):
            turn = tiles[first : first + ranks]
            own = decode(turn[mine]).contiguous() if mine < len(turn) else None
            for owner, latents in enumerate(turn):
                yield _received(own if owner == mine else None, latents, owner, group)

    return spread


def _received(own: torch.Tensor | None, like: torch.Tensor, owner: int, group: dist.ProcessGroup) -> torch.Tensor:
    """The tile of the rank ``owner`` within the group, whose ``own`` it is; of the dtype of its latents."""
    source = dist.get_global_rank(group, owner)
    shape = torch.zeros(5, dtype=torch.int64, device=like.device)
    if own is not None:
        shape.copy_(torch.tensor(own.shape))
    dist.broadcast(shape, src=source, group=group)
    tile = torch.empty(shape.tolist(), dtype=like.dtype, device=like.device) if own is None else own
    dist.broadcast(tile, src=source, group=group)
    return tile
