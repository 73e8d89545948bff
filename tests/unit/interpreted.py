"""The kernel as Triton's CPU interpreter runs it: a copy of its module, imported with ``TRITON_INTERPRET=1``."""

from __future__ import annotations

import importlib.util
from functools import cache
from types import ModuleType

import pytest
import torch

import kernels


@cache
def split_rotary() -> ModuleType:
    path = f"{kernels.__path__[0]}/split_rotary.py"
    spec = importlib.util.spec_from_file_location("interpreted_split_rotary", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        spec.loader.exec_module(module)
    assert module.INTERPRETED
    return module


def tables(batch: int, tokens: int, heads: int, half: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin [B,H,T,R] of random angles, strided as ``engine.layers.rope.rotary`` makes them."""
    generator = torch.Generator().manual_seed(seed)
    angles_BHTR = (torch.rand((batch, tokens, heads, half), generator=generator) * 6).transpose(1, 2)
    return angles_BHTR.cos(), angles_BHTR.sin()


def states(batch: int, tokens: int, width: int, dtype: torch.dtype, seed: int = 1) -> torch.Tensor:
    return torch.randn((batch, tokens, width), generator=torch.Generator().manual_seed(seed)).to(dtype)


def differing(left: torch.Tensor, right: torch.Tensor) -> int:
    """Elements with other bits. The sign of zero counts; a NaN equals a NaN, whose payload depends on the CPU."""
    assert left.shape == right.shape
    assert left.dtype == right.dtype
    bits = torch.int16 if left.dtype == torch.bfloat16 else torch.int32
    other = left.contiguous().view(bits) != right.contiguous().view(bits)
    return int((other & ~(left.isnan() & right.isnan())).sum())
