"""Ranks of a mesh: tensor parallel neighbours, and a layout that the ranks do not fill."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

from conformance.case import Layout
from conformance.errors import InputError
from engine.parallel import mesh

LAYOUT = Layout(tp=2, cfg=2, ulysses=2, ring=1, text=False)


@pytest.mark.parametrize(("rank", "places"), [(0, (0, 0, 0, 0)), (1, (0, 0, 0, 1)), (6, (1, 0, 1, 0))])
def test_tensor_parallel_ranks_are_neighbours(rank: int, places: tuple[int, ...]) -> None:
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=8)
    try:
        made = mesh.make(LAYOUT, torch.device("cpu"))
        assert tuple(made.index(axis) for axis in mesh.AXES) == places
        assert [made.size(axis) for axis in mesh.AXES] == [2, 1, 2, 2]
        ranks = dist.get_process_group_ranks(made.group("cfg"))
        assert ranks == [rank % 4, rank % 4 + 4]
    finally:
        dist.destroy_process_group()


def test_a_layout_of_another_number_of_ranks_is_refused() -> None:
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=4)
    try:
        with pytest.raises(InputError, match=r"'cfg2-ulysses2-tp2' is 8; expected 4 ranks, as there are"):
            mesh.make(LAYOUT, torch.device("cpu"))
    finally:
        dist.destroy_process_group()
