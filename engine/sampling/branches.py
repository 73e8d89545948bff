"""Who runs the forwards of a step: one device runs them all, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch

Forward = tuple[str, ...]
# clean estimate [B,T,C] by branch and stream
Estimates = dict[str, dict[str, torch.Tensor]]


class Spread(Protocol):
    """Runs every forward of a step somewhere and returns the x0 of all branches, in the order of the forwards.

    run: one forward, here. blank: a tensor of a stream with the shape, dtype and strides of its x0, of any values: what
    an x0 that was computed elsewhere is received in.
    """

    def __call__(
        self,
        forwards: Sequence[Forward],
        run: Callable[[Forward], Estimates],
        blank: Callable[[str], torch.Tensor],
    ) -> Estimates: ...


def run_all(
    forwards: Sequence[Forward], run: Callable[[Forward], Estimates], blank: Callable[[str], torch.Tensor]
) -> Estimates:
    """Every forward here."""
    out: Estimates = {}
    for forward in forwards:
        out |= run(forward)
    return out
