"""The split rotary kernel in Triton's interpreter: the bits of its eager twin, and machine code that can have them."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch
from engine_reference import DIFFUSERS, dit_inputs, engine_dit
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreted import differing, split_rotary, states, tables

from engine import picks
from kernels import split_rotary_eager
from kernels.split_rotary_eager import ROUNDINGS

BF16, FP32 = torch.bfloat16, torch.float32
DTYPES = (BF16, FP32)
# NaN whose payload a careless rounding carries to infinity, to minus zero, to zero
NANS = torch.tensor([0x7F800001, 0x7FFFFFFF, -1], dtype=torch.int32).view(FP32)
SPECIAL = torch.cat((torch.tensor([0.0, -0.0, torch.inf, -torch.inf, 1e-40, -1e-45, 3.4e38, -3.39e38, 1e-38]), NANS))


def assert_equal_bits(
    x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, rounding: str, expected: torch.Tensor | None = None
) -> None:
    ours = split_rotary().rotate(x, cos, sin, rounding)
    theirs = split_rotary_eager.rotate(x, cos, sin, rounding) if expected is None else expected
    assert differing(ours, theirs) == 0
    assert ours.is_contiguous()


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=25)
@given(
    sizes=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 5), st.sampled_from((1, 3, 4, 8, 10, 32))),
    shared=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_bits_of_the_twin_at_any_shape(
    dtype: torch.dtype, rounding: str, sizes: tuple[int, int, int, int], shared: bool, seed: int
) -> None:
    batch, tokens, heads, half = sizes
    x = states(batch, tokens, heads * 2 * half, dtype, seed)
    assert_equal_bits(x, *tables(1 if shared else batch, tokens, heads, half, seed + 1), rounding)


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")  # numpy, in the interpreter
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), special=st.booleans())
def test_bits_of_the_twin_at_any_value(dtype: torch.dtype, rounding: str, seed: int, special: bool) -> None:
    """Any bit pattern for x, cos and sin, or mostly infinities, NaN, subnormals and zeros of both signs."""
    generator = torch.Generator().manual_seed(seed)

    def draw(dtype: torch.dtype, *shape: int) -> torch.Tensor:
        if special:
            values = SPECIAL[torch.randint(len(SPECIAL), shape, generator=generator)]
            return torch.where(torch.rand(shape, generator=generator) < 0.7, values, 1.5).to(dtype)
        bits = torch.int16 if dtype == BF16 else torch.int32
        info = torch.iinfo(bits)
        return torch.randint(info.min, info.max, shape, generator=generator, dtype=bits).view(dtype)

    cos, sin = (draw(FP32, 1, 2, 7, 16) for _ in range(2))
    assert_equal_bits(draw(dtype, 2, 7, 64), cos, sin, rounding)


def test_rounding_is_to_nearest_even() -> None:
    """Every kind of bf16 tie, and overflow to infinity: x itself passes when cos is 1 and sin 0."""
    bits = torch.tensor([0x3F808000, 0x3F818000, 0x3F808001, 0x3F807FFF, 0x7F7FFFFF, 0x00008000, 0x00018000, 1])
    cos = bits.to(torch.int32).view(FP32).view(1, 1, 1, 8)
    x = torch.ones(1, 1, 16, dtype=BF16)
    ours = split_rotary().rotate(x, cos, torch.zeros_like(cos), "fp32-once")[0, 0, 0, :8]
    assert ours.view(torch.int16).tolist() == [0x3F80, 0x3F82, 0x3F81, 0x3F80, 0x7F80, 0, 2, 0]


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_slice_of_heads_is_that_slice_of_the_whole(dtype: torch.dtype, rounding: str) -> None:
    """Tensor parallelism: three of eight heads, tables sliced in place."""
    x, (cos, sin) = states(2, 5, 8 * 16, dtype), tables(2, 5, 8, 8)
    whole = split_rotary_eager.rotate(x, cos, sin, rounding)
    local = x[..., 2 * 16 : 5 * 16].contiguous()
    assert_equal_bits(local, cos[:, 2:5], sin[:, 2:5], rounding, expected=whole[:, :, 2:5])


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_any_strides_of_tables_are_followed(rounding: str) -> None:
    x, (cos, sin) = states(2, 7, 3 * 20, BF16), tables(2, 7, 3, 10)
    wide = torch.stack((cos, sin), dim=3).flatten(3)  # [B,H,T,2R]
    assert_equal_bits(x, cos.contiguous(), sin, rounding)
    assert_equal_bits(x, wide[..., :10], wide[..., 10:], rounding)


def test_the_two_orders_differ_in_bf16_only() -> None:
    operands = [states(1, 64, 128, BF16), *tables(1, 64, 4, 16)]
    once, twice = (split_rotary().rotate(*operands, rounding) for rounding in ROUNDINGS)
    assert 0.1 < differing(once, twice) / once.numel() < 0.4
    operands[0] = operands[0].float()
    assert differing(*(split_rotary().rotate(*operands, rounding) for rounding in ROUNDINGS)) == 0


def test_a_token_less_call_is_empty() -> None:
    assert split_rotary().rotate(states(2, 0, 24, BF16), *tables(1, 0, 3, 4), "fp32-once").shape == (2, 0, 3, 8)


def test_the_kernel_verifies_what_it_is_given() -> None:
    x, (cos, sin) = states(2, 5, 24, BF16), tables(1, 5, 3, 4)
    with pytest.raises(ValueError, match="split rotary kernel: x is not contiguous"):
        split_rotary().rotate(x.transpose(0, 1).contiguous().transpose(0, 1), cos, sin, "fp32-once")
    with pytest.raises(ValueError, match=r"tables \(1, 2, 5, 4\) do not belong to x \(2, 5, 24\)"):
        split_rotary().rotate(x, cos[:, 1:], sin[:, 1:], "fp32-once")


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_dit_has_the_same_bits_with_the_kernel(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kernels.split_rotary", split_rotary())
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    dit, inputs = engine_dit("ltx-2.3", dtype), dit_inputs("ltx-2.3", dtype)
    with torch.no_grad(), picks.scope(kernels=True) as fused:
        ours = dit(inputs, DIFFUSERS)
    with torch.no_grad(), picks.scope(kernels=False) as eager:
        theirs = dit(inputs, DIFFUSERS)
    assert (fused.ledger()["rotary"], eager.ledger()["rotary"]) == ("triton", "eager (kernels are off)")
    assert all(differing(a, b) == 0 for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(
    ("bf16", "rounded", "mode", "expected"),
    [
        (True, False, 1, {"mul": 64, "add": 0, "fma": 64}),
        (True, True, 0, {"mul": 128, "add": 64, "fma": 0}),
        (False, False, 1, {"mul": 64, "add": 0, "fma": 64}),
    ],
)
def test_machine_code_for_hopper_rounds_as_written(
    bf16: bool, rounded: bool, mode: int, expected: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiled without a GPU: two products and a sum per element, 32 of each half a thread, fused only as asked."""
    from triton import compile as compile_
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from kernels.split_rotary import _kernel

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    element = "*i16" if bf16 else "*fp32"
    signature = dict.fromkeys(_kernel.arg_names[:11], "i32")
    signature |= {"x_ptr": element, "out_ptr": element, "cos_ptr": "*fp32", "sin_ptr": "*fp32"}
    values = [32, 64, 64, 64, bf16, rounded, mode]
    constants = dict(zip(_kernel.arg_names[11:], values, strict=True))
    source = ASTSource(_kernel, signature | dict.fromkeys(constants, "constexpr"), constexprs=constants)
    code = compile_(source, target=GPUTarget("cuda", 90, 32), options={"enable_fp_fusion": False}).asm["ptx"]
    counts = {name: len(re.findall(rf"\b{name}\.(?:rn\.)?f32\b", code)) for name in ("mul", "add", "sub", "fma")}
    assert counts == {**expected, "sub": 0}
