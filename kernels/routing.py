"""Which implementation of an operation runs, and why. Pure functions of the operands; no Triton is imported here."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec

import torch

from kernels.split_rotary_eager import ROUNDINGS

_MAX_ROWS = 2**31 - 1  # the kernel counts rows in 32 bits


@dataclass(frozen=True)
class Pick:
    """``triton`` or ``eager``; for eager the reason, one clause."""

    name: str
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.reason})" if self.reason else self.name


def interpreting() -> bool:
    """Triton runs kernels on the CPU in this process (``TRITON_INTERPRET=1`` before the first import of a kernel)."""
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "yes", "on", "y")


def refusal(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, rounding: str, *, interpreted: bool) -> str | None:
    """Why the split rotary kernel cannot take x [B,T,D] with cos and sin [B|1,H,T,R], or None when it can.

    D must be the width of exactly the tables' heads: under tensor parallelism both are the same slice of heads.
    """
    if x.device.type != ("cpu" if interpreted else "cuda"):
        return "no CUDA device" if x.device.type == "cpu" else f"no kernel on device {x.device.type}"
    if rounding not in ROUNDINGS:
        return f"no rounding order {rounding!r}"
    if x.dtype not in (torch.bfloat16, torch.float32):
        return f"x is {x.dtype}, not bfloat16 or float32"
    if x.ndim != 3 or cos.ndim != 4 or cos.shape != sin.shape:
        return f"shapes {tuple(x.shape)}, {tuple(cos.shape)} and {tuple(sin.shape)} are not [B,T,D] and twice [B,H,T,R]"
    (batch, tokens, width), (table_batch, heads, table_tokens, half) = x.shape, cos.shape
    if table_batch not in (1, batch) or table_tokens != tokens or width != heads * 2 * half:
        return f"tables {tuple(cos.shape)} do not belong to x {tuple(x.shape)}"
    if tokens * heads > _MAX_ROWS:
        return f"{tokens * heads} rows do not fit 32 bits"
    if not x.is_contiguous():
        return "x is not contiguous"
    for name, table in (("cos", cos), ("sin", sin)):
        if table.dtype != torch.float32 or table.device != x.device:
            return f"{name} is {table.dtype} on {table.device}, not float32 on {x.device}"
        if half > 1 and table.stride(3) != 1:
            return f"rows of {name} are not contiguous"
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x, cos, sin)):
        return "the kernel has no backward pass"
    return None


def choose_rotary(
    x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, rounding: str, *, enabled: bool, interpreted: bool
) -> Pick:
    """The implementation of one rotation; never raises, as eager is always right. enabled: the case wants kernels."""
    if not enabled:
        return Pick("eager", "kernels are off")
    reason = refusal(x, cos, sin, rounding, interpreted=interpreted)
    if reason is None and find_spec("triton") is None:
        reason = "triton is not installed"
    return Pick("triton") if reason is None else Pick("eager", reason)
