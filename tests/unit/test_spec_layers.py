"""Layers of the engine against the executable specification, bit for bit where torch allows it."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from engine_reference import DIFFUSERS
from hypothesis import given, settings
from hypothesis import strategies as st
from spec_check import BF16, FP32, assert_bits, assert_ulps, differing, draw, edged, small_integers
from torch.nn import functional

from engine.layers.attention import Attention
from engine.layers.embeddings import modulation, sinusoid
from engine.layers.feedforward import GeluProjection
from engine.layers.norm import fused_rms_norm, rms_norm
from engine.models.ltx2.block import _modulate
from reference_impl.spec import layers as spec
from reference_impl.spec.rounding import round_to

EPS = 1e-6


class _Constant(torch.nn.Module):
    """A layer whose output is given."""

    def __init__(self, value: torch.Tensor) -> None:
        super().__init__()
        self.value = value

    def forward(self, _: torch.Tensor) -> torch.Tensor:
        return self.value


DTYPES = (FP32, BF16)


@pytest.mark.parametrize("norm", [rms_norm, fused_rms_norm])
@pytest.mark.parametrize("dtype", DTYPES)
def test_rms_norm_bitwise_where_the_mean_is_exact(norm: Any, dtype: torch.dtype) -> None:
    x = small_integers(dtype, 64, 256)
    x[0], x[1, :] = 0.0, -0.0
    assert_bits(norm(x, EPS), spec.rms_norm(x, EPS, dtype))


@pytest.mark.parametrize("norm", [rms_norm, fused_rms_norm])
def test_rms_norm_of_any_numbers(norm: Any) -> None:
    """The order of summation moves the inverse root by an ulp or two, and few elements across a bf16 tie."""
    x = draw(FP32, 64, 4096, scale=3.0)
    assert_ulps(norm(x, EPS), spec.rms_norm(x, EPS, FP32), 4)
    x = x.bfloat16()
    expected = spec.rms_norm(x, EPS, BF16)
    assert_ulps(norm(x, EPS), expected, 1)
    assert differing(norm(x, EPS), expected) < 1e-4 * x.numel()


def test_the_weighted_norm_of_attention() -> None:
    layer = Attention(256, 256, 4, 64, gated=False)
    weight = layer.norm_q.weight.data.copy_(draw(FP32, 256, seed=3)).bfloat16()
    x, norm = small_integers(BF16, 64, 256), layer.to(BF16).norm_q
    once, twice = (norm(x, replace(DIFFUSERS, qk_norm=choice)) for choice in ("rounded-once", "rounded-twice"))
    assert_bits(once, spec.weighted_rms_norm(x, weight, EPS, BF16, twice=False))
    assert_bits(twice, spec.weighted_rms_norm(x, weight, EPS, BF16, twice=True))
    assert 0.15 < differing(once, twice.double()) / x.numel() < 0.35


@pytest.mark.parametrize("dtype", DTYPES)
def test_head_gates(dtype: torch.dtype) -> None:
    """An attention that passes its values through and has no output projection leaves the gate alone."""
    layer = Attention(16, 16, 4, 4, gated=True).to(dtype)
    layer.to_out[0] = torch.nn.Identity()
    values, logits = draw(dtype, 3, 50, 16), draw(dtype, 3, 50, 4, seed=1, scale=4.0)
    layer.to_v, layer.to_gate_logits = _Constant(values), _Constant(logits)  # type: ignore[assignment]
    ours = layer(draw(dtype, 3, 50, 16), values_only=True, numerics=DIFFUSERS)
    expected = spec.gated(values.unflatten(2, (4, 4)), logits, dtype).flatten(2)
    if dtype == BF16:
        assert_bits(ours, expected)
    else:
        assert_ulps(ours, expected, 3)


@pytest.mark.parametrize("dtype", DTYPES)
def test_gelu(dtype: torch.dtype) -> None:
    """1 + tanh cancels for negative numbers, where float32 leaves an error of 1e-7 in all."""
    projection = GeluProjection(1, 1).to(dtype)
    x = torch.cat((draw(dtype, 4000, 1, scale=3.0), edged(dtype, 100, 1)))
    projection.proj = torch.nn.Identity()  # type: ignore[assignment]
    expected = spec.gelu_tanh(x, dtype)
    finite = torch.isfinite(expected)
    ours = projection(x)
    assert (ours.double() - expected)[finite & (x.abs() < 100)].abs().max() < (5e-7 if dtype == FP32 else 2e-2)
    if dtype == BF16:
        usual = (x > -2).squeeze() & finite.squeeze()
        assert_bits(ours[usual], expected[usual])
    assert differing(functional.gelu(x), ours.double()) > 0.05 * x.numel()


@pytest.mark.parametrize("dtype", DTYPES)
def test_modulation(dtype: torch.dtype) -> None:
    x, shift, scale = (edged(dtype, 2, 40, 24, seed=seed) for seed in range(3))
    assert_bits(_modulate(x, shift, scale), spec.modulate(x, shift, scale, dtype))
    table, ada = edged(dtype, 9, 24), edged(dtype, 2, 40, 9 * 24)
    for ours, expected in zip(modulation(table, ada), spec.modulation_rows(table, ada, dtype), strict=True):
        assert_bits(ours, expected)


def test_sinusoid() -> None:
    t = torch.cat(
        (torch.tensor([0.0, 1000.0, 999.37, 1e-3]), torch.rand(200, generator=torch.Generator().manual_seed(0)) * 1000)
    )
    ours, expected = sinusoid(t), spec.sinusoid(t)
    assert (ours.double() - expected).abs().max() < 1.2e-7
    in_model = ours.bfloat16()
    assert differing(in_model, round_to(expected, BF16)) < 1e-4 * ours.numel()


@settings(max_examples=50)
@given(st.lists(st.floats(-1e4, 1e4, width=16), min_size=3, max_size=3))
def test_modulation_of_any_numbers(values: list[float]) -> None:
    for dtype in DTYPES:
        x, shift, scale = (torch.tensor([value]).to(dtype) for value in values)
        assert_bits(_modulate(x, shift, scale), spec.modulate(x, shift, scale, dtype))


def test_a_residual_is_two_roundings() -> None:
    """Of the block's self attention: x + out*gate."""
    from engine.models.ltx2.block import Block

    x, out, rows = (
        edged(BF16, 1, 30, 16),
        edged(BF16, 1, 30, 16, seed=1),
        [edged(BF16, 1, 30, 16, seed=s) for s in range(2, 5)],
    )
    stream: Any = SimpleNamespace(rope=None, numerics=DIFFUSERS)
    fake: Any = SimpleNamespace(eps=EPS)
    ours = Block._self_attention(fake, lambda *_, **__: out, x, tuple(rows), stream, False)  # type: ignore[arg-type]
    assert_bits(ours, spec.residual(x, out, rows[2], BF16))
