"""A child of a process that torchrun started: it joins the process group of one case, and says where it is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from conformance.attached import Place
from conformance.collectives import record
from conformance.errors import ConformanceError, RankFailed
from conformance.places import Board, Places, State
from conformance.ranks import Rank, initialise

_TELL = 0.2  # seconds between words to the parent on where this rank is
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Joined:
    """A rank inside the process group. group: the harness's own, in which no collective of the engine is awaited."""

    rank: Rank
    group: dist.ProcessGroup
    state: Callable[[], State]

    def gather(self, value: Any) -> list[Any] | None:
        """The values of all ranks by rank, on rank 0; None on the others."""
        values = [None] * self.rank.world if self.rank.index == 0 else None
        dist.gather_object(value, values, dst=0, group=self.group)
        return values

    def told(self, work: Callable[[], T]) -> T:
        """``work()``; what it raises says where this rank was. ConformanceErrors are left as they are."""
        try:
            return work()
        except ConformanceError:
            raise
        except Exception as error:
            text = f"{type(error).__name__}: {str(error).strip() or 'no message'}"
            raise RankFailed(f"raised {text}, {self.state()}") from error


@contextmanager
def joined(
    place: Place, case: str, backend: str, timeout: float, threads: int, report: Callable[[str], None]
) -> Iterator[Joined]:
    """Be a rank of ``case``, a name that all ranks give it and no other case has. report: told where this rank is."""
    board = Board(1)
    places = Places(board, 0)
    ended = threading.Event()
    teller = threading.Thread(target=_tell, args=(board, report, ended), daemon=True)
    torch.set_num_threads(threads)
    record(places)
    places.report("meeting the other ranks")
    teller.start()
    try:
        meeting = dist.TCPStore(place.host, place.port, is_master=False, wait_for_workers=False)
        store = dist.PrefixStore(case, meeting)
        alone = place.host in ("localhost", "127.0.0.1", "::1")
        initialise(backend, store, place.rank, place.world, timeout, device=place.local, one_machine=alone)
        group = dist.new_group(backend="gloo")
        own = dist.PrefixStore("harness", store)
        rank = Rank(
            index=place.rank,
            world=place.world,
            device=place.local,
            store=own,
            report=places.report,
            enter=places.enter,
            exchanges=places.exchanges,
        )
        yield Joined(rank=rank, group=group, state=lambda: board.read(0))
    finally:
        ended.set()
        teller.join()


def _tell(board: Board, report: Callable[[str], None], ended: threading.Event) -> None:
    last = ""
    while not ended.wait(_TELL):
        now = str(board.read(0)).removeprefix("at: ")
        if now != last:
            report(now)
            last = now
