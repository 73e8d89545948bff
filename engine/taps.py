"""Taps inside DiT blocks, hung on from outside, so that model code knows nothing of probes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from conformance.generator import BLOCK_TAPS, Probe

Hook = Callable[[nn.Module, Any, Any], None]
Whole = Callable[[Any], Any]
_WHOLE = "_whole_for_taps"


@contextmanager
def block_taps(blocks: nn.ModuleList, probe: Probe) -> Iterator[None]:
    """While open, every block's ``BLOCK_TAPS`` and its outputs are recorded, where the probe goes that deep."""
    handles = []
    try:
        if probe.depth == "block":
            for index, block in enumerate(blocks):
                prefix = f"block.{index:02d}"
                for module, tap in BLOCK_TAPS.items():
                    hook = _record(probe, f"{prefix}/{tap}")
                    handles.append(block.get_submodule(module).register_forward_hook(hook))
                handles.append(block.register_forward_hook(_record(probe, f"{prefix}/video", f"{prefix}/audio")))
        yield
    finally:
        for handle in handles:
            handle.remove()


def record_whole(module: nn.Module, whole: Whole) -> None:
    """Taps of a module that puts out a share of what it did on one device record ``whole`` of its output instead.

    Called again, for a share of a share, the later function comes after the earlier one.
    """
    setattr(module, _WHOLE, (*getattr(module, _WHOLE, ()), whole))


def _record(probe: Probe, *names: str) -> Hook:
    def hook(module: nn.Module, args: Any, output: Any) -> None:
        for whole in getattr(module, _WHOLE, ()):
            output = whole(output)
        tensors = (output,) if isinstance(output, torch.Tensor) else output
        for name, tensor in zip(names, tensors, strict=True):
            probe.model_tap(name, tensor)

    return hook
