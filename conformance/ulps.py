"""How many representable numbers lie between two tensors, element by element."""

from __future__ import annotations

import torch

_BITS = {
    torch.float32: (torch.int32, 2**31),
    torch.bfloat16: (torch.int16, 2**15),
    torch.float16: (torch.int16, 2**15),
}


def distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """ULPs between equal-shaped tensors of one dtype (float32, bfloat16, float16), int64. -0.0 and 0.0 are equal."""
    return (_ordered(a) - _ordered(b)).abs()


def _ordered(x: torch.Tensor) -> torch.Tensor:
    """Integers in the order of the numbers: neighbours differ by one."""
    integer, sign = _BITS[x.dtype]
    bits = x.detach().cpu().contiguous().view(integer).long()
    return torch.where(bits < 0, -(bits + sign), bits)


def histogram(a: torch.Tensor, b: torch.Tensor) -> dict[str, int]:
    """Elements by distance: ``0``, ``1``, ``2-3``, ``4-7``, ... as far as there are any. Empty for other dtypes."""
    if a.dtype != b.dtype or a.dtype not in _BITS:
        return {}
    found = distance(a, b).flatten()
    # 0 -> 0, 1 -> 1, 2-3 -> 2, 4-7 -> 3: exact for the distances of these dtypes, which float64 holds
    bins = torch.where(found > 0, found.double().log2().floor().long() + 1, 0)
    counts = torch.bincount(bins)
    return {_label(index): int(count) for index, count in enumerate(counts) if count}


def _label(index: int) -> str:
    low, high = 2 ** (index - 1) if index else 0, 2**index - 1
    return str(low) if low == high else f"{low}-{high}"
