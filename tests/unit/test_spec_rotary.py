"""Rotary embedding and positions of the engine against the executable specification."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from engine_reference import CPU, DIFFUSERS, engine_dit
from spec_check import BF16, FP32, assert_bits, assert_ulps, differing, draw, edged

from engine.layers.rope import Rotary, frequency_grid, midpoints, rotary
from engine.models.ltx2 import positions
from reference_impl.spec import positions as spec_positions
from reference_impl.spec import rotary as spec
from reference_impl.spec.rounding import exact

ROUNDINGS = ("fp32-once", "product-rounded")


@pytest.mark.parametrize("count", [2, 16, 341, 682, 2048])
def test_frequency_grid(count: int) -> None:
    assert_bits(frequency_grid(count, 1e4, DIFFUSERS, CPU), spec.frequency_grid(count, 1e4))


def test_float32_frequency_grid() -> None:
    """pow of float32 is not correctly rounded in torch."""
    ours = frequency_grid(682, 1e4, replace(DIFFUSERS, rope_grid_dtype="float32"), CPU)
    assert_ulps(ours, spec.frequency_grid_fp32(682, 1e4), 2)
    assert differing(ours, spec.frequency_grid_fp32(682, 1e4)) < 20
    assert differing(ours, spec.frequency_grid(682, 1e4)) > 400


def _tables(dim: int, axes: int) -> tuple[Rotary, torch.Tensor, torch.Tensor]:
    fractions = torch.rand(2, axes, 11, generator=torch.Generator().manual_seed(axes))
    ours = rotary(fractions, dim=dim, heads=4, theta=1e4, numerics=DIFFUSERS)
    angles = spec.angles(fractions, spec.frequency_grid(dim // (2 * axes), 1e4))
    return ours, *spec.tables(angles, dim, 4)


@pytest.mark.parametrize(("dim", "axes"), [(128, 3), (64, 1), (256, 3)])
def test_tables(dim: int, axes: int) -> None:
    """Same angle bits; torch's float32 cosine is within an ulp of 1 of the exact one."""
    ours, cos, sin = _tables(dim, axes)
    assert (ours.cos_BHTR.double() - cos).abs().max() < 1.2e-7
    assert (ours.sin_BHTR.double() - sin).abs().max() < 1.2e-7


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_rotation_in_bfloat16(rounding: str) -> None:
    ours, _, _ = _tables(128, 3)
    x = edged(BF16, 2, 11, 128)
    expected = spec.rotate(x, ours.cos_BHTR, ours.sin_BHTR, rounding, BF16)
    assert_bits(replace(ours, rounding=rounding).apply(x), expected)


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_rotation_in_float32(rounding: str) -> None:
    """The sine product is rounded before the sum or not: processors with and without a fused instruction."""
    ours, _, _ = _tables(128, 3)
    x = draw(FP32, 2, 11, 128)
    out = replace(ours, rounding=rounding).apply(x).double()
    fused, separate = (
        spec.rotate(x, ours.cos_BHTR, ours.sin_BHTR, rounding, FP32, fused=fused) for fused in (True, False)
    )
    assert bool(((out == fused) | (out == separate)).all())
    assert not torch.equal(fused, separate)


@pytest.mark.parametrize("frame_rate", [24.0, 25.0, 23.976, 50.0])
def test_video_positions(frame_rate: float) -> None:
    config = engine_dit("ltx-2.3", FP32).config
    ours = positions.video_bounds((5, 2, 3), frame_rate, 2, config, CPU)
    expected = spec_positions.video_bounds((5, 2, 3), frame_rate, config.vae_scale_factors, config.causal_offset)
    for row in ours:
        assert_bits(row, expected)
    for dtype, name in ((FP32, "float32"), (BF16, "model")):
        rounded = positions.rounded(ours, BF16, replace(DIFFUSERS, positions_dtype=name))
        assert rounded.dtype == dtype
        assert_bits(midpoints(rounded)[0], spec_positions.midpoints(exact(rounded[0]), dtype))


def test_audio_positions() -> None:
    config = engine_dit("ltx-2.3", FP32).config
    expected = spec_positions.audio_bounds(
        600, config.audio_scale_factor, config.causal_offset, config.audio_hop_length, config.audio_sampling_rate
    )
    assert_bits(positions.audio_bounds(600, 1, config, CPU)[0, 0], expected)
