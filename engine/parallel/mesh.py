"""Which rank does what: the axes of a layout over the ranks of a process group.

Axes from slowest to fastest: ``cfg`` (branches of guidance), ``ring`` and ``ulysses`` (the sequence), ``tp`` (heads and
features): neighbours, which talk most, are tensor-parallel.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from conformance.case import Layout
from conformance.errors import bad_field

AXES = ("cfg", "ring", "ulysses", "tp")


@dataclass(frozen=True, kw_only=True)
class Mesh:
    """The axes of ``layout`` as seen from this rank."""

    layout: Layout
    devices: DeviceMesh

    def size(self, axis: str) -> int:
        """Ranks along an axis."""
        return getattr(self.layout, axis)

    def index(self, axis: str) -> int:
        """This rank's place along an axis."""
        return self.devices.get_local_rank(axis)

    @property
    def world(self) -> dist.ProcessGroup:
        """All ranks."""
        group = dist.group.WORLD
        assert group is not None
        return group

    def group(self, axis: str) -> dist.ProcessGroup:
        """The ranks that differ from this one along the axis alone, itself among them."""
        return self.devices.get_group(axis)


def make(layout: Layout, device: torch.device) -> Mesh:
    """The mesh of a layout. The process group is there already; every rank calls this.

    InputError when it has another number of ranks than the layout.
    """
    if dist.get_world_size() != layout.world:
        raise bad_field("layout", layout.name, layout.world, f"{dist.get_world_size()} ranks, as there are")
    sizes = tuple(getattr(layout, axis) for axis in AXES)
    return Mesh(layout=layout, devices=init_device_mesh(device.type, sizes, mesh_dim_names=AXES))
