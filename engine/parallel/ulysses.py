"""Ulysses: a rank's tokens of all heads for all tokens of a rank's heads, and back.

Source: Jacobs et al. 2023, arXiv:2309.14509. Nothing is computed here, so that every bit stays what it was.
Legend: B batch, t tokens of a rank, T of the ranks of the axis together, H heads, h heads of a rank, d head dim.
"""

from __future__ import annotations

import torch
import torch.distributed as dist

from engine.parallel.mesh import Mesh


def to_heads(x_BtHd: torch.Tensor, mesh: Mesh) -> torch.Tensor:
    """This rank's heads over the tokens of all ranks of the axis, in their order: [B,T,h,d], contiguous."""
    ranks = mesh.size("ulysses")
    if ranks == 1:
        return x_BtHd
    by_rank = x_BtHd.unflatten(2, (ranks, -1)).permute(2, 0, 1, 3, 4)
    return _exchanged(by_rank, mesh).transpose(0, 1).flatten(1, 2).contiguous()


def to_tokens(x_BThd: torch.Tensor, mesh: Mesh) -> torch.Tensor:
    """The inverse of ``to_heads``: all heads over this rank's tokens, [B,t,H,d], contiguous."""
    ranks = mesh.size("ulysses")
    if ranks == 1:
        return x_BThd
    by_rank = x_BThd.unflatten(1, (ranks, -1)).transpose(0, 1)
    return _exchanged(by_rank, mesh).permute(1, 2, 0, 3, 4).flatten(2, 3).contiguous()


def _exchanged(x: torch.Tensor, mesh: Mesh) -> torch.Tensor:
    """Entry r of the first axis goes to rank r; entry r of the result came from there."""
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    dist.all_to_all_single(out, x.contiguous(), group=mesh.group("ulysses"))
    return out
