"""Torch's autocast around the DiT, as a rounding decision: the models themselves use none."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from engine.numerics import Numerics


def autocast(state: torch.Tensor, numerics: Numerics) -> AbstractContextManager[object]:
    """The context in which the DiT reads ``state``: autocast to its dtype where ``numerics.autocast`` asks for it.

    float32 models run as they are: there is nothing lower to cast to.
    """
    if numerics.autocast == "off" or state.dtype == torch.float32:
        return nullcontext()
    return torch.autocast(state.device.type, dtype=state.dtype)
