"""Attention kernels by name. Legend: B batch, T queries, S keys, H heads, d head dim.

``sdpa`` is torch's own choice. The other names are demands: a kernel that cannot run is an UnsupportedCase, never
another kernel. What ran is recorded for the ledger.
"""

from __future__ import annotations

import importlib
from contextlib import nullcontext
from typing import Any

import torch
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from conformance.errors import UnsupportedCase
from engine import picks

_TORCH = {
    "math": SDPBackend.MATH,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}
_CUDA_ONLY = ("efficient", "cudnn", "fa3")
_HALF_ONLY = ("flash", "cudnn", "fa3")  # on CUDA
_UNMASKED = ("flash", "fa3")  # on CUDA


def refusal(backend: str, *, device: str, dtype: torch.dtype, masked: bool) -> str | None:
    """Why a backend cannot run on a device type ("cpu", "cuda") with these operands, or None when it may."""
    if backend in _CUDA_ONLY and device != "cuda":
        return f"needs a CUDA device, not {device}"
    if device != "cuda":
        return None
    if backend in _UNMASKED and masked:
        return "takes no mask"
    if backend in _HALF_ONLY and dtype not in (torch.bfloat16, torch.float16):
        return f"takes bfloat16 and float16, not {dtype}"
    return None


def attend(
    q_BTHd: torch.Tensor, k_BSHd: torch.Tensor, v_BSHd: torch.Tensor, mask_BS: torch.Tensor | None, backend: str
) -> torch.Tensor:
    """softmax(q k^T / sqrt(d) + mask) v per head by the kernel ``backend`` names: [B,T,H,d] in q's dtype.

    mask_BS: additive, or None. UnsupportedCase names the backend and the reason when it cannot run.
    """
    reason = refusal(backend, device=q_BTHd.device.type, dtype=q_BTHd.dtype, masked=mask_BS is not None)
    if reason is not None:
        raise _unsupported(backend, reason)
    if backend == "fa3":
        picks.record("attention", backend)
        return _flash_attention_3(q_BTHd, k_BSHd, v_BSHd)
    q, k, v = (x.transpose(1, 2) for x in (q_BTHd, k_BSHd, v_BSHd))
    mask = None if mask_BS is None else mask_BS[:, None, None, :].expand(-1, q.shape[1], -1, -1)
    with sdpa_kernel(_TORCH[backend]) if backend in _TORCH else nullcontext():
        chosen = _choice(q, k, v, mask)
        if backend in _TORCH and chosen != _TORCH[backend]:
            shapes = f"q {tuple(q.shape)}, k {tuple(k.shape)}, {'a' if mask is not None else 'no'} mask"
            raise _unsupported(backend, f"torch does not run it on {q.device.type} for {q.dtype}, {shapes}")
        name = chosen.name.lower().removesuffix("_attention")
        picks.record("attention", name if backend in _TORCH else f"{name} (torch's choice)")
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)


def _choice(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None) -> SDPBackend:
    """The kernel torch takes for these operands under the current switches; ERROR for none."""
    try:
        return SDPBackend(torch._fused_sdp_choice(q, k, v, mask))
    except RuntimeError:
        return SDPBackend.ERROR


def _flash_attention_3(q_BTHd: torch.Tensor, k_BSHd: torch.Tensor, v_BSHd: torch.Tensor) -> torch.Tensor:
    """Flash attention 3 (Shah et al. 2024, arXiv:2407.08608) through whichever entry the installed build has.

    Builds differ: with or without a dense entry, with or without ``out=`` (so it is never passed), returning the
    output alone or with its log-sum-exp. The variable-length entry takes the batch as sequences of one length.
    """
    try:
        module: Any = importlib.import_module("flash_attn_interface")
    except (ImportError, OSError) as error:
        raise _unsupported("fa3", f"flash_attn_interface cannot be imported ({error})") from None
    (batch, queries, heads, width), keys = q_BTHd.shape, k_BSHd.shape[1]
    options = {"softmax_scale": width**-0.5, "causal": False}
    if hasattr(module, "flash_attn_func"):
        out = module.flash_attn_func(q_BTHd, k_BSHd, v_BSHd, **options)
    else:
        out = module.flash_attn_varlen_func(
            *(x.flatten(0, 1) for x in (q_BTHd, k_BSHd, v_BSHd)),
            cu_seqlens_q=_starts(batch, queries, q_BTHd.device),
            cu_seqlens_k=_starts(batch, keys, q_BTHd.device),
            max_seqlen_q=queries,
            max_seqlen_k=keys,
            **options,
        )
    return (out[0] if isinstance(out, tuple) else out).view(batch, queries, heads, width)


def _starts(batch: int, length: int, device: torch.device) -> torch.Tensor:
    """Where each of ``batch`` sequences starts, and the end of the last: int32 [batch+1]."""
    return torch.arange(0, (batch + 1) * length, length, dtype=torch.int32, device=device)


def _unsupported(backend: str, reason: str) -> UnsupportedCase:
    return UnsupportedCase(f"attention backend {backend!r}: {reason}")
