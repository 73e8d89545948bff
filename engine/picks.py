"""The switch for fused kernels, and a record of the implementations that ran, for the ledger of a sample.

A kernel computes the bits of its eager twin, so the switch is no rounding decision and travels beside ``Numerics``:
the engine opens one scope around a case, as ``torch.nn.attention.sdpa_kernel`` does, and layers report to it.
Outside of a scope kernels are off and nothing is recorded.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Picks:
    """kernels: the case's switch. seen: operation -> distinct picks, in order of first use."""

    kernels: bool
    seen: dict[str, dict[str, None]] = field(default_factory=dict)

    def ledger(self) -> dict[str, str]:
        """Operation -> what ran; several picks are joined by '; '."""
        return {operation: "; ".join(picks) for operation, picks in sorted(self.seen.items())}


_OUTSIDE = Picks(kernels=False)
_CURRENT: ContextVar[Picks] = ContextVar("picks", default=_OUTSIDE)


@contextmanager
def scope(*, kernels: bool) -> Iterator[Picks]:
    """Everything that runs inside uses ``kernels`` and is recorded in the result."""
    picks = Picks(kernels=kernels)
    token = _CURRENT.set(picks)
    try:
        yield picks
    finally:
        _CURRENT.reset(token)


def kernels_enabled() -> bool:
    return _CURRENT.get().kernels


def record(operation: str, pick: str) -> None:
    """Note that ``pick`` computed ``operation``; outside of a scope nothing is kept."""
    picks = _CURRENT.get()
    if picks is not _OUTSIDE:
        picks.seen.setdefault(operation, {})[pick] = None
