"""``fp8-cast`` by the official packages themselves, 1.0.0 and 1.2.0. ``packages.install`` comes first."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

FP8 = torch.float8_e4m3fn


def fp8_cast(module: Any, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Prepare an ``LTXModel`` and its tensors (the packages' names, dtypes as stored) as the packages' policy does.

    The module's linear layers are made to widen their weights; the tensors come back with the selected ones as
    float8_e4m3fn, which must then not be cast again.
    """
    from ltx_core.quantization import TRANSFORMER_LINEAR_DOWNCAST_MAP, UPCAST_DURING_INFERENCE

    if not UPCAST_DURING_INFERENCE.matcher(module):
        raise TypeError(f"fp8-cast is for an LTXModel, not for a {type(module).__name__}")
    UPCAST_DURING_INFERENCE.mutator(module)
    found: dict[str, torch.Tensor] = {}
    for key, tensor in tensors.items():
        found |= {
            item.new_key: item.new_value for item in TRANSFORMER_LINEAR_DOWNCAST_MAP.apply_to_key_value(key, tensor)
        }
    return found


def used(module: nn.Module) -> str:
    """What the loaded module's own weights say: ``none`` or ``fp8-cast``."""
    return "fp8-cast" if any(value.dtype == FP8 for value in module.parameters()) else "none"
