"""Split rotary embedding as one Triton kernel, bitwise equal to ``split_rotary_eager``.

bf16 travels as its bit pattern and is rounded by ``_bf16_round``: Triton's CPU interpreter has neither a correct
bf16 cast nor bf16 arithmetic, and a kernel that avoids both is the same program there and on a GPU.
Legend: B batch, T tokens, H heads, R half a head's width, D = H*2R.
"""

from __future__ import annotations

import functools

import torch
import triton
import triton.language as tl

from kernels.routing import refusal

_ROWS_x_R = 4096  # elements of one half that a program rotates
# values of MODE; literals in the kernel, which sees no globals
_SEPARATE, _FUSED, _FUSED_IN_FP64 = 0, 1, 2


@triton.jit
def _bf16_round(x):
    """float32 to the nearest bf16, ties to even, as float32. NaN stays NaN (quiet, with its sign)."""
    bits = x.to(tl.uint32, bitcast=True)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    # the carry of a NaN's payload could reach infinity or the sign
    kept = (bits | 0x00400000) & 0xFFFF0000
    return tl.where((bits & 0x7FFFFFFF) > 0x7F800000, kept, rounded).to(tl.float32, bitcast=True)


@triton.jit
def _widen(x, BF16: tl.constexpr):
    """What was loaded as float32: int16 holds the high half of a float32."""
    if BF16:
        x = (x.to(tl.int32) << 16).to(tl.float32, bitcast=True)
    return x


@triton.jit
def _narrow(x, BF16: tl.constexpr):
    if BF16:
        x = (_bf16_round(x).to(tl.int32, bitcast=True) >> 16).to(tl.int16)
    return x


@triton.jit
def _negated(x):
    """-x with the sign of zero; Triton's own minus is 0 - x."""
    return (x.to(tl.uint32, bitcast=True) ^ 0x80000000).to(tl.float32, bitcast=True)


@triton.jit
def _multiply_add(a, b, c, MODE: tl.constexpr):
    """a*b + c, rounded as torch's addcmul rounds it on this device (``_mode``)."""
    if MODE == 2:
        result = (a.to(tl.float64) * b.to(tl.float64) + c.to(tl.float64)).to(tl.float32)
    elif MODE == 1:
        result = tl.fma(a, b, c)
    else:
        result = a * b + c
    return result


@triton.jit
def _kernel(
    x_ptr,
    cos_ptr,
    sin_ptr,
    out_ptr,
    rows_per_batch,  # T*H
    cos_b,
    cos_h,
    cos_t,
    sin_b,
    sin_h,
    sin_t,
    H: tl.constexpr,
    R: tl.constexpr,
    R_PADDED: tl.constexpr,
    ROWS: tl.constexpr,
    BF16: tl.constexpr,
    PRODUCT_ROUNDED: tl.constexpr,
    MODE: tl.constexpr,
):
    batch = tl.program_id(1).to(tl.int64)
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)  # a row is one head of one token
    columns = tl.arange(0, R_PADDED)
    inside = (rows < rows_per_batch)[:, None] & (columns < R)[None, :]
    token, head = (rows // H).to(tl.int64), (rows % H).to(tl.int64)
    first = ((batch * rows_per_batch + rows) * (2 * R))[:, None] + columns[None, :]
    cos_at = (batch * cos_b + token * cos_t + head * cos_h)[:, None] + columns[None, :]
    sin_at = (batch * sin_b + token * sin_t + head * sin_h)[:, None] + columns[None, :]
    a = _widen(tl.load(x_ptr + first, mask=inside, other=0), BF16)
    b = _widen(tl.load(x_ptr + first + R, mask=inside, other=0), BF16)
    cos = tl.load(cos_ptr + cos_at, mask=inside, other=0.0)
    sin = tl.load(sin_ptr + sin_at, mask=inside, other=0.0)
    if PRODUCT_ROUNDED and BF16:
        cos, sin = _bf16_round(cos), _bf16_round(sin)
    a_cos, b_cos = a * cos, b * cos
    if PRODUCT_ROUNDED and BF16:
        a_cos, b_cos = _bf16_round(a_cos), _bf16_round(b_cos)
    tl.store(out_ptr + first, _narrow(_multiply_add(_negated(sin), b, a_cos, MODE), BF16), mask=inside)
    tl.store(out_ptr + first + R, _narrow(_multiply_add(sin, a, b_cos, MODE), BF16), mask=inside)


INTERPRETED = not isinstance(_kernel, triton.JITFunction)  # TRITON_INTERPRET=1 when this module was imported


@functools.cache
def _mode(device: torch.device) -> int:
    """How addcmul rounds on ``device``, asked of torch: it differs between devices and releases."""
    factor = torch.tensor([1.0 + 2.0**-12], dtype=torch.float32, device=device).repeat(64)
    residue = torch.addcmul(-(factor * factor), factor, factor)  # 2^-24 if the product was not rounded
    if not bool(residue.any()):
        return _SEPARATE
    # the interpreter's fma rounds twice; in float64 the product is exact, and a second rounding shows in one of 2^29
    return _FUSED_IN_FP64 if INTERPRETED else _FUSED


def rotate(x_BTD: torch.Tensor, cos_BHTR: torch.Tensor, sin_BHTR: torch.Tensor, rounding: str) -> torch.Tensor:
    """``split_rotary_eager.rotate`` in one pass over memory; the same arguments and the same bits.

    x: contiguous, bf16 or float32. cos, sin: float32 with contiguous rows; strides are free otherwise, so a slice of
    heads or a batch of one is no copy. ValueError for what ``kernels.routing.refusal`` names.
    """
    reason = refusal(x_BTD, cos_BHTR, sin_BHTR, rounding, interpreted=INTERPRETED)
    if reason is not None:
        raise ValueError(f"split rotary kernel: {reason}")
    batch, tokens, _ = x_BTD.shape
    heads, half = cos_BHTR.shape[1], cos_BHTR.shape[3]
    out_BTHd = torch.empty((batch, tokens, heads, 2 * half), dtype=x_BTD.dtype, device=x_BTD.device)
    if out_BTHd.numel() == 0:
        return out_BTHd
    bf16 = x_BTD.dtype == torch.bfloat16
    padded = 1 << (half - 1).bit_length()
    rows = max(1, _ROWS_x_R // padded)
    # a batch of one serves every entry
    cos, sin = (table.expand(batch, -1, -1, -1) for table in (cos_BHTR, sin_BHTR))
    _kernel[(-(-tokens * heads // rows), batch)](
        x_BTD.view(torch.int16) if bf16 else x_BTD,
        cos,
        sin,
        out_BTHd.view(torch.int16) if bf16 else out_BTHd,
        tokens * heads,
        *cos.stride()[:3],
        *sin.stride()[:3],
        H=heads,
        R=half,
        R_PADDED=padded,
        ROWS=rows,
        BF16=bf16,
        PRODUCT_ROUNDED=rounding == "product-rounded",
        MODE=_mode(x_BTD.device),
        enable_fp_fusion=False,  # every product rounds, but for the one in _multiply_add
    )
    return out_BTHd
