"""Layers against independent formulas in float64."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers.models.transformers.transformer_ltx2 import apply_split_rotary_emb
from engine_reference import CPU, DIFFUSERS
from torch.nn import functional

from engine.layers.attention import Attention
from engine.layers.embeddings import sinusoid
from engine.layers.feedforward import FeedForward
from engine.layers.norm import fused_rms_norm, rms_norm
from engine.layers.rope import Rotary, frequency_grid, midpoints, rotary, sequence_rotary


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_frequency_grid_is_correctly_rounded() -> None:
    exact = [math.pow(10000.0, k / 681) * math.pi / 2 for k in range(682)]
    assert torch.equal(frequency_grid(682, 10000.0, DIFFUSERS, CPU), torch.tensor(exact, dtype=torch.float64).float())


def test_midpoint_is_not_the_start() -> None:
    assert midpoints(torch.tensor([[[[0.0, 8.0], [8.0, 16.0]]]])).tolist() == [[[4.0, 12.0]]]


def test_rotary_angles() -> None:
    """Axis 2 of 3, head 1, token 5 of a 128 wide, 4 headed table, from the definition."""
    fractions = torch.rand((2, 3, 7), generator=torch.Generator().manual_seed(1))
    tables = rotary(fractions, dim=128, heads=4, theta=10000.0, numerics=DIFFUSERS)
    count, pad = 128 // 6, 64 - 3 * (128 // 6)
    index = 16 + 6  # of 64, head 1, seventh of its 16
    frequency, axis = divmod(index - pad, 3)
    grid = 10000.0 ** (frequency / (count - 1)) * math.pi / 2
    angle = (2 * float(fractions[1, axis, 5]) - 1) * grid
    assert float(tables.cos_BHTR[1, 1, 5, 6]) == pytest.approx(math.cos(angle), abs=1e-4)
    assert float(tables.sin_BHTR[1, 1, 5, 6]) == pytest.approx(math.sin(angle), abs=1e-4)
    assert bool((tables.cos_BHTR[:, 0, :, :pad] == 1).all())
    assert bool((tables.sin_BHTR[:, 0, :, :pad] == 0).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rotation_matches_diffusers_bitwise(dtype: torch.dtype) -> None:
    tables = sequence_rotary(37, 4096, dim=96, heads=4, theta=10000.0, numerics=DIFFUSERS, device=CPU)
    x = randn(1, 37, 96).to(dtype)
    ours = tables.apply(x).flatten(2)
    assert torch.equal(ours, apply_split_rotary_emb(x, (tables.cos_BHTR, tables.sin_BHTR)))


def test_rotation_rounds_the_product_first_when_asked() -> None:
    """bf16(bf16(a*cos) - sin*b): the products of bf16 numbers are exact in float32."""
    angle = torch.rand((1, 1, 64, 16), generator=torch.Generator().manual_seed(1)) * 6
    x = randn(1, 64, 32).bfloat16()
    ours = Rotary(angle.cos(), angle.sin(), "product-rounded").apply(x)[0, :, 0]
    cos, sin = angle.cos()[0, 0].bfloat16().float(), angle.sin()[0, 0].bfloat16().float()
    a, b = x[0].float().chunk(2, dim=-1)
    first = ((a * cos).bfloat16().float() - sin * b).bfloat16()
    second = ((b * cos).bfloat16().float() + sin * a).bfloat16()
    assert torch.equal(ours, torch.cat((first, second), dim=-1))


@pytest.mark.parametrize("norm", [rms_norm, fused_rms_norm])
def test_rms_norm_rounds_once(norm: object) -> None:
    x = (randn(64, 256) * 5).bfloat16()
    exact = x.double() / (x.double().square().mean(-1, keepdim=True) + 1e-6).sqrt()
    differing = (norm(x, 1e-6) != exact.bfloat16()).double().mean()  # type: ignore[operator]
    assert float(differing) < 1e-3


def test_sinusoid_at_the_highest_timestep() -> None:
    t = torch.tensor([999.37, 0.5])
    angles = t.double()[:, None] * torch.exp(-math.log(10000) * torch.arange(128).double() / 128)
    expected = torch.cat((angles.cos(), angles.sin()), dim=-1)
    assert (sinusoid(t).double() - expected).abs().max() < 1e-4
    assert (sinusoid(t.bfloat16()).double() - expected).abs().max() > 1e-2


def test_feed_forward_uses_the_tanh_gelu() -> None:
    ff, x = FeedForward(16).double(), randn(5, 16).double()
    hidden = x @ ff.state_dict()["net.0.proj.weight"].T + ff.state_dict()["net.0.proj.bias"]
    tanh = 0.5 * hidden * (1 + torch.tanh(math.sqrt(2 / math.pi) * (hidden + 0.044715 * hidden**3)))
    expected = functional.linear(tanh, ff.state_dict()["net.2.weight"], ff.state_dict()["net.2.bias"])
    assert torch.allclose(ff(x), expected, rtol=0, atol=1e-12)


def attention(gated: bool) -> Attention:
    torch.manual_seed(2)
    return Attention(32, 32, 4, 8, gated=gated).double()


def test_attention_formula() -> None:
    layer, x, context = attention(False), randn(2, 5, 32).double(), randn(2, 7, 32, seed=1).double()
    q, k = layer.norm_q(layer.to_q(x), DIFFUSERS), layer.norm_k(layer.to_k(context), DIFFUSERS)
    v = layer.to_v(context)
    out = torch.empty(2, 5, 32, dtype=torch.float64)
    for head in range(4):
        part = slice(8 * head, 8 * head + 8)
        weight = torch.softmax(q[..., part] @ k[..., part].transpose(1, 2) / math.sqrt(8), dim=-1)
        out[..., part] = weight @ v[..., part]
    assert torch.allclose(layer(x, context, numerics=DIFFUSERS), layer.to_out[0](out), rtol=0, atol=1e-12)


def test_gates_scale_heads_and_are_one_at_zero() -> None:
    layer, x = attention(True), randn(1, 5, 32).double()
    assert layer.to_gate_logits is not None
    layer.to_out[0] = torch.nn.Identity()
    layer.to_gate_logits.weight.data.zero_()
    layer.to_gate_logits.bias.data.zero_()
    plain = layer(x, numerics=DIFFUSERS)
    layer.to_gate_logits.bias.data[2] = 1.5
    expected = plain.clone()
    expected[..., 16:24] *= 2 / (1 + math.exp(-1.5))
    assert torch.allclose(layer(x, numerics=DIFFUSERS), expected, rtol=0, atol=1e-12)


def test_perturbed_attention_passes_values_through() -> None:
    layer, x = attention(False), randn(1, 5, 32).double()
    assert torch.equal(layer(x, values_only=True, numerics=DIFFUSERS), layer.to_out[0](layer.to_v(x)))
