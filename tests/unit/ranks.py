"""A function on several ranks, for tests of what runs under torch.distributed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from conformance import ranks


def run_ranks(world: int, function: Callable[..., Any], *args: Any, timeout: float = 60.0) -> list[Any]:
    """``function(rank, *args)`` on ``world`` forked ranks with an initialised default group (gloo); results by rank.

    One CPU thread a rank. Results must be picklable; the function need not be. RankFailed when a rank raises (with what
    it raised), dies, or is not done within ``timeout`` seconds; a ConformanceError is raised as it is.
    """
    return ranks.run(world, _call, function, args, timeout=timeout)


def _call(rank: ranks.Rank, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    return function(rank.index, *args)
