"""Text feature extraction of the engine against the executable specification."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from engine_reference import DIFFUSERS, engine_connectors
from spec_check import BF16, FP32, assert_bits, assert_ulps, differing, draw, small_integers

from engine.models.ltx2.connectors import range_norm, token_norm
from reference_impl.spec import text as spec

DTYPES = (FP32, BF16)
# 8 layers of 2 x 16 tokens: whole vectors of inverse roots
VALID = torch.ones(2, 16, dtype=torch.bool)
VALID[0, :2] = VALID[1, :9] = False
SHAPE = (2, 16, 64, 8)


@pytest.mark.parametrize("dtype", DTYPES)
def test_range_norm(dtype: torch.dtype) -> None:
    x = small_integers(dtype, *SHAPE)
    x[:, :, :, 2] += 3
    assert_bits(range_norm(x, VALID), spec.range_norm(x, VALID, dtype))


def test_range_norm_of_any_numbers() -> None:
    """In bf16 the rounded sum hides the order of summation."""
    x = draw(BF16, *SHAPE)
    assert_bits(range_norm(x, VALID), spec.range_norm(x, VALID, BF16))
    x = x.float()
    assert (range_norm(x, VALID).double() - spec.range_norm(x, VALID, FP32)).abs().max() < 2e-7


@pytest.mark.parametrize("dtype", DTYPES)
def test_token_norm(dtype: torch.dtype) -> None:
    x = small_integers(dtype, *SHAPE)
    x[:, 3] = 0
    assert_bits(token_norm(x, VALID, DIFFUSERS), spec.token_norm(x, VALID, dtype, dtype))


def test_token_norm_of_any_numbers() -> None:
    x = draw(BF16, *SHAPE)
    ours = token_norm(x, VALID, DIFFUSERS)
    assert_bits(ours, spec.token_norm(x, VALID, BF16, BF16))
    wide = token_norm(x, VALID, replace(DIFFUSERS, feature_rms_dtype="float32"))
    assert_bits(wide, spec.token_norm(x, VALID, BF16, FP32))
    assert differing(ours, wide.double()) > 0.1 * ours.numel()
    assert_ulps(token_norm(x.float(), VALID, DIFFUSERS), spec.token_norm(x.float(), VALID, FP32, FP32), 4)


def test_inverse_roots_behind_the_last_whole_vector_are_rounded_twice() -> None:
    """So a token's features can depend on how many tokens there are: torch on a CPU, bf16."""
    x = draw(BF16, 1, 3, 64, 7)
    tail = torch.rsqrt(torch.mean(x**2, dim=2, keepdim=True) + 1e-6)
    once, twice = spec.inverse_rms(x, BF16), spec.inverse_rms(x, BF16, BF16)
    assert not torch.equal(once, twice)
    assert bool(((tail == once) | (tail == twice)).all())


def test_each_modality_widens_its_features() -> None:
    """The projections of LTX-2.3 are given normed features times sqrt(own width / encoder width)."""
    connectors, seen = engine_connectors("ltx-2.3", BF16), {}
    config = connectors.config
    hooks = [
        getattr(connectors, f"{stream}_text_proj_in").register_forward_pre_hook(
            lambda _, args, stream=stream: seen.setdefault(stream, args[0])
        )
        for stream in ("video", "audio")
    ]
    layers = config.text_proj_in_factor
    x = draw(BF16, 2, 16, config.caption_channels, layers)
    connectors._features(x, VALID, DIFFUSERS)
    for hook in hooks:
        hook.remove()
    normed = spec.token_norm(x, VALID, BF16, BF16)
    for stream, width in (("video", config.video_hidden_dim), ("audio", config.audio_hidden_dim)):
        assert_bits(seen[stream], spec.widened(normed, width, config.caption_channels, BF16))
