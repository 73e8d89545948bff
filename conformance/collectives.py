"""What a rank does in torch.distributed, noted from outside the engine: the last collective, and if it came back."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Protocol

import torch.distributed as dist

# methods of a process group -> the functions of torch.distributed that call them; torch 2.11 lacks some
COLLECTIVES = {
    "allreduce": "all_reduce",
    "allreduce_coalesced": "all_reduce_coalesced",
    "allgather": "all_gather",
    "allgather_coalesced": "all_gather_coalesced",
    "_allgather_base": "all_gather_into_tensor",
    "all_gather_single": "all_gather_into_tensor",
    "all_gather_single_coalesced": "all_gather_into_tensor",
    "allgather_into_tensor_coalesced": "all_gather_into_tensor",
    "alltoall": "all_to_all",
    "alltoall_base": "all_to_all_single",
    "all_to_all_single": "all_to_all_single",
    "barrier": "barrier",
    "monitored_barrier": "monitored_barrier",
    "broadcast": "broadcast",
    "gather": "gather",
    "reduce": "reduce",
    "reduce_scatter": "reduce_scatter",
    "_reduce_scatter_base": "reduce_scatter_tensor",
    "reduce_scatter_single": "reduce_scatter_tensor",
    "reduce_scatter_single_coalesced": "reduce_scatter_tensor",
    "reduce_scatter_tensor_coalesced": "reduce_scatter_tensor",
    "scatter": "scatter",
    "send": "send",
    "recv": "recv",
    "recv_anysource": "recv",
}
_MEETINGS = ("barrier", "monitored_barrier")  # which exchange nothing


class Places(Protocol):
    def enter(self, collective: str) -> None: ...

    def inside(self, inside: bool) -> None: ...

    def exchange(self) -> None: ...


def record(places: Places) -> None:
    """From now on every collective of this process is noted before it is entered, and when it has come back.

    Works on the process group's methods, which every way of calling a collective goes through. It stays for the life of
    the process. One in which this rank could have got something of another is an exchange too.
    """
    for method, name in COLLECTIVES.items():
        if hasattr(dist.ProcessGroup, method):
            setattr(dist.ProcessGroup, method, _noted(getattr(dist.ProcessGroup, method), name, places))
    setattr(dist.Work, "wait", _waited(dist.Work.wait, places))  # noqa: B010


def _noted(method: Callable[..., Any], name: str, places: Places) -> Callable[..., Any]:
    @wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        places.enter(name)
        if name not in _MEETINGS and args[0].size() > 1:
            places.exchange()
        result = method(*args, **kwargs)
        places.inside(False)
        return result

    return call


def _waited(method: Callable[..., Any], places: Places) -> Callable[..., Any]:
    @wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        places.inside(True)
        result = method(*args, **kwargs)
        places.inside(False)
        return result

    return call
