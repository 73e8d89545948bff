"""Conditions that must not matter to any generator, engine or reference: threads, memory, attention kernel, neighbours.

They act on torch from outside, so one definition serves every generator. ``defects.nuisance`` holds what only our own
engine can vary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from conformance.case import Case
from engine import numerics

_ATTENTION = functional.scaled_dot_product_attention
_LAYERS = (functional.linear, functional.conv1d, functional.conv2d, functional.conv3d, functional.conv_transpose1d)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Sums split over another number of CPU threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class ShiftedMemory(TorchFunctionMode):
    """Weights and inputs of linear layers, convolutions and attention one element off their allocation's alignment."""

    def __torch_function__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function is _ATTENTION or function in _LAYERS:
            args = tuple(_shifted(value) for value in args)
            kwargs = {name: _shifted(value) for name, value in kwargs.items()}
        return function(*args, **kwargs)


def _shifted(value: Any) -> Any:
    if not isinstance(value, torch.Tensor) or not value.is_contiguous():
        return value
    room = torch.empty(value.numel() + 1, dtype=value.dtype, device=value.device)
    return room[1:].view(value.shape).copy_(value)


class Neighbours(TorchFunctionMode):
    """Every linear layer, convolution and attention computes as many batch entries again, whose rows are dropped."""

    def __torch_function__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        if function is _ATTENTION:
            entries = (args[0] if args else named["query"]).shape[0]
            args = [_twice(value, entries) for value in args]
            named = {name: _twice(value, entries) for name, value in named.items()}
            return function(*args, **named)[:entries]
        if function in _LAYERS:
            x, weight, *rest = (*args, *(named.pop(name) for name in ("input", "weight")[len(args) :]))
            if x.ndim >= weight.ndim:  # else there is no batch
                return function(_twice(x, x.shape[0]), weight, *rest, **named)[: x.shape[0]]
            return function(x, weight, *rest, **named)
        return function(*args, **named)


def _twice(value: Any, entries: int) -> Any:
    """A tensor of that many batch entries, twice; anything else (a mask for all of them) as it is."""
    matching = isinstance(value, torch.Tensor) and value.ndim > 1 and value.shape[0] == entries
    return torch.cat((value, value)) if matching else value


def _attention(kernel: SDPBackend) -> AbstractContextManager[None]:
    """One kernel of torch's, where it can run: it takes no mask everywhere, and ``math`` stands in."""
    return sdpa_kernel(list(dict.fromkeys((kernel, SDPBackend.MATH))), set_priority=True)


_KERNELS = {"math": SDPBackend.MATH, "flash": SDPBackend.FLASH_ATTENTION, "efficient": SDPBackend.EFFICIENT_ATTENTION}


def conditions(case: Case, device: str) -> dict[str, Callable[[], AbstractContextManager[Any]]]:
    """Conditions that are legal for the case on a device (``cpu``, ``cuda``, ``cuda:1``), by name."""
    found: dict[str, Callable[[], AbstractContextManager[Any]]] = {
        "two_threads": partial(threads, 2),
        "shifted_memory": ShiftedMemory,
        "batch_neighbours": Neighbours,
    }
    if numerics.resolve(case).attention == "sdpa":  # torch's own choice, so any of its kernels
        names = ("flash", "math") if device == "cpu" else ("flash", "efficient", "math")
        found |= {f"attention_{name}": partial(_attention, _KERNELS[name]) for name in names}
    return {**found, "together": partial(_together, tuple(found.values()))}


@contextmanager
def _together(each: Sequence[Callable[[], AbstractContextManager[Any]]]) -> Iterator[None]:
    """All at once; of several attention kernels the last."""
    with ExitStack() as stack:
        for condition in each:
            stack.enter_context(condition())
        yield
