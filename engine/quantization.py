"""Linear layers whose weights are held narrow (``Case.quantization``). Legend: I, O input and output features."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn
from torch.nn import functional

from conformance.quantization import FP8_CAST, selects
from engine.models.ltx2 import weights

M = TypeVar("M", bound=nn.Module)
FP8 = torch.float8_e4m3fn


class Fp8Linear(nn.Linear):
    """A linear layer, weight [O,I] and bias [O] float8_e4m3fn and widened to the input's dtype at each product.

    Widening is exact; the wide copy lives as long as the product.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return functional.linear(x, self.weight.to(x.dtype), bias)


def load(build: Callable[[], M], folder: Path, dtype: torch.dtype, device: torch.device, *, quantization: str) -> M:
    """A transformer with the folder's weights; all but ``quantization`` (``none``, ``fp8-cast``) as ``weights.load``.

    Selected weights are rounded from the dtype they are stored in, to the nearest and to even, or kept where they are
    stored as float8_e4m3fn. InputError names a weight that float8_e4m3fn cannot hold.
    """
    if quantization != FP8_CAST:
        return weights.load(build, folder, dtype, device)

    def quantized() -> M:
        module = build()
        _replace_linears(module)
        return module

    return weights.load(quantized, folder, dtype, device, fp8=selects)


def _replace_linears(module: nn.Module) -> None:
    for name, layer in list(module.named_modules()):
        if selects(f"{name}.weight"):
            if type(layer) is not nn.Linear:
                raise TypeError(f"{name} is a {type(layer).__name__}, not a linear layer")
            made = Fp8Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
            module.set_submodule(name, made)


def used(module: nn.Module) -> str:
    """What the module's own weights say it was loaded as: ``none`` or ``fp8-cast``."""
    return FP8_CAST if any(value.dtype == FP8 for value in module.parameters()) else "none"
