"""Where ranks are: written by each in shared memory, read by their launcher."""

from __future__ import annotations

import mmap
import pickle
import re
from collections import Counter
from dataclasses import dataclass

_SLOT = 512  # bytes a rank may use to say where it is
_STEP = re.compile(r"after (?:(stage\.\d+)/)?step\.")


@dataclass(frozen=True, kw_only=True)
class State:
    """Where a rank is. collective: the last it entered, the ``count``-th; inside: it has not come back from it."""

    place: str
    collective: str
    count: int
    inside: bool

    def __str__(self) -> str:
        if not self.count:
            return f"at: {self.place}; it entered no collective"
        verb = "waiting in" if self.inside else "after"
        return f"at: {self.place}; {verb} {self.collective}, its collective number {self.count}"


class Board:
    """Memory in which every rank says where it is; what it wrote last outlives it."""

    def __init__(self, world: int) -> None:
        self._memory = mmap.mmap(-1, world * _SLOT)

    def write(self, rank: int, state: State) -> None:
        data = pickle.dumps((state.place[:200], state.collective[:80], state.count, state.inside))
        start = rank * _SLOT
        self._memory[start : start + len(data)] = data

    def read(self, rank: int) -> State:
        """The last state written; one that is just being written reads as the beginning."""
        try:
            place, collective, count, inside = pickle.loads(self._memory[rank * _SLOT : (rank + 1) * _SLOT])
        except Exception:
            place, collective, count, inside = "starting", "", 0, False
        return State(place=place, collective=collective, count=count, inside=inside)


class Places:
    """A rank's own side of the board.

    exchanges: collectives of several ranks, barriers aside, that were entered before the first tap (``text``, which is
    encoded first) and in the steps of each stage (``steps`` of a lone one, ``stage.1``).
    """

    def __init__(self, board: Board, rank: int) -> None:
        self.exchanges: Counter[str] = Counter()
        self._board, self._rank = board, rank
        self._place, self._collective, self._count = "starting", "", 0
        self._write(False)

    def report(self, place: str) -> None:
        self._place = place
        self._write(False)

    def enter(self, collective: str) -> None:
        self._collective, self._count = collective, self._count + 1
        self._write(True)

    def exchange(self) -> None:
        if part := _part(self._place):
            self.exchanges[part] += 1

    def inside(self, inside: bool) -> None:
        self._write(inside)

    def _write(self, inside: bool) -> None:
        state = State(place=self._place, collective=self._collective, count=self._count, inside=inside)
        self._board.write(self._rank, state)


def _part(place: str) -> str:
    """What a place counts to among ``exchanges``; empty for none."""
    if place.endswith("generating"):
        return "text"
    step = _STEP.search(place)
    return "" if step is None else step[1] or "steps"
