"""CFG parallelism: the forwards of a step over the ranks of the ``cfg`` axis.

Every rank then has the x0 of all branches, bit for bit those of one device, and combines them by the same formula. Sums
of branches already scaled would round otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist

from engine.parallel.mesh import Mesh
from engine.pipelines.ltx2_inputs import STREAMS
from engine.sampling.branches import Estimates, Forward, Spread


def source(owner: int, mesh: Mesh) -> int:
    """The rank in the whole world that is ``owner`` along this rank's axis: collectives count in those."""
    return dist.get_global_rank(mesh.group("cfg"), owner)


def received(x0: torch.Tensor, owner: int, mesh: Mesh) -> torch.Tensor:
    """``x0`` of the rank ``owner`` along the axis; on the others ``x0`` says shape, dtype and strides."""
    # a collective moves contiguous memory; later sums follow the strides, which the copy below keeps
    moved = x0.contiguous()
    dist.broadcast(moved, src=source(owner, mesh), group=mesh.group("cfg"))
    return x0 if owner == mesh.index("cfg") else x0.copy_(moved)


def spread_over(mesh: Mesh) -> Spread:
    """Forward number i is run by rank i modulo the axis. Ranks without one only receive."""

    def spread(
        forwards: Sequence[Forward], run: Callable[[Forward], Estimates], blank: Callable[[str], torch.Tensor]
    ) -> Estimates:
        ranks, mine = mesh.size("cfg"), mesh.index("cfg")
        ran = {index: run(forward) for index, forward in enumerate(forwards) if index % ranks == mine}
        out: Estimates = {}
        for index, forward in enumerate(forwards):
            for branch in forward:
                out[branch] = {}
                for stream in STREAMS:
                    x0 = ran[index][branch][stream] if index in ran else blank(stream)
                    out[branch][stream] = received(x0, index % ranks, mesh)
        return out

    return spread
