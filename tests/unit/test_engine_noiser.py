"""Noising a latent: bit for bit what diffusers and the official packages make of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import LTX2ImageToVideoPipeline, LTX2Pipeline
from official_packages import require

from engine.numerics import Numerics
from engine.sampling.given import Given, restore
from engine.sampling.noiser import noised

SHAPE = (2, 45, 128)
DTYPES = (torch.float32, torch.bfloat16)
LEVELS = (0.909375, 0.3, 1.0)
NOISERS = ("weighted", "masked", "lerp")


def choice(noiser: str) -> Numerics:
    return replace(Numerics.official_1_0_0(), noiser=noiser)


def draw(seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def given(strengths: tuple[float, ...], dtype: torch.dtype = torch.float32) -> Given:
    """Three tokens of every five are given, in turn with these masks."""
    mask_BT1 = torch.ones(*SHAPE[:2], 1)
    for place, strength in enumerate(strengths):
        mask_BT1[:, place::5] = strength
    return Given(mask_BT1=mask_BT1, clean_BTC=draw(3, dtype))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("masked", [False, True])
def test_weighted_is_bitwise_the_pipelines(masked: bool, dtype: torch.dtype, level: float) -> None:
    latent = draw(1, dtype)
    tokens = given((0.0, 0.0, 0.0)) if masked else None
    pipeline: Any = LTX2ImageToVideoPipeline if masked else LTX2Pipeline
    scale: Any = level if tokens is None else level * (1 - (1 - tokens.mask_BT1.to(dtype)))
    expected = pipeline._create_noised_state(latent, scale, torch.Generator().manual_seed(2))
    ours = noised(latent, draw(2, dtype), level, choice("weighted"), tokens)
    assert ours.dtype == dtype
    assert torch.equal(ours, expected)


def official(latent: torch.Tensor, level: float, tokens: Given) -> torch.Tensor:
    """What the installed packages make of it, whatever their version; the noise is drawn from seed 2."""
    from ltx_core.components.noisers import GaussianNoiser
    from ltx_core.types import LatentState

    state = LatentState(
        latent=latent,
        denoise_mask=tokens.mask_BT1,
        positions=torch.zeros(1),
        clean_latent=tokens.clean_BTC,
    )
    return GaussianNoiser(torch.Generator().manual_seed(2))(state, level).latent


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("strengths", [(), (0.0,), (0.0, 0.3, 0.7)])
def test_is_bitwise_the_official_noiser(strengths: tuple[float, ...], dtype: torch.dtype, level: float) -> None:
    noiser = "masked" if require("1.0.0", "1.2.0") == "1.0.0" else "lerp"
    tokens, latent = given(strengths, dtype), draw(1, dtype)
    expected = official(latent, level, tokens)
    assert torch.equal(noised(latent, draw(2, dtype), level, choice(noiser), tokens), expected)
    if not strengths:
        assert torch.equal(noised(latent, draw(2, dtype), level, choice(noiser)), expected)


@pytest.mark.parametrize("noiser", NOISERS)
def test_against_the_definition_in_float64(noiser: str) -> None:
    tokens, latent, noise = given((0.0, 0.3, 0.7)), draw(1), draw(2)
    mask, clean = tokens.mask_BT1.double(), tokens.clean_BTC.double()
    if noiser == "lerp":
        expected = clean + mask * (0.9 * noise.double() + 0.1 * latent.double() - clean)
    else:
        expected = 0.9 * mask * noise.double() + (1 - 0.9 * mask) * latent.double()
    for dtype, limit in ((torch.float32, 2e-7), (torch.bfloat16, 8e-3)):
        ours = noised(latent.to(dtype), noise, 0.9, choice(noiser), tokens)
        assert ours.dtype == dtype
        assert float((ours.double() - expected).norm() / expected.norm()) < limit


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("noiser", NOISERS)
def test_a_token_that_stays_keeps_its_bits(noiser: str, dtype: torch.dtype) -> None:
    tokens = given((0.0,), dtype)
    latent = torch.where(tokens.mask_BT1 == 0, tokens.clean_BTC, draw(1, dtype))
    ours = noised(latent, draw(2), 0.909375, choice(noiser), tokens)
    assert torch.equal(ours[:, ::5], latent[:, ::5])
    assert not torch.equal(ours[:, 1::5], latent[:, 1::5])


@pytest.mark.parametrize("noiser", ["masked", "lerp"])
def test_is_rounded_once(noiser: str) -> None:
    """A second rounding changes a quarter of all numbers."""
    latent, noise = draw(1, torch.bfloat16), draw(2, torch.bfloat16)
    tokens = Given(mask_BT1=torch.full((*SHAPE[:2], 1), 0.6), clean_BTC=latent)
    exact = latent.double() + 0.6 * 0.909375 * (noise.double() - latent.double())
    ours = noised(latent, noise, 0.909375, choice(noiser), tokens)
    assert float((ours != exact.bfloat16()).double().mean()) < 1e-3


def test_the_three_differ_in_bf16_only_by_rounding() -> None:
    latent, noise = draw(1, torch.bfloat16), draw(2)
    weighted, masked, lerp = (noised(latent, noise, 0.909375, choice(name)) for name in NOISERS)
    assert not torch.equal(weighted, masked)
    assert float((weighted.double() - lerp.double()).norm() / lerp.double().norm()) < 8e-3
    clean = replace(given((0.3,)), clean_BTC=latent)
    assert not torch.equal(*(noised(latent, noise, 0.909375, choice(name), clean) for name in ("masked", "lerp")))


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64])
def test_restore_blends_and_keeps_the_dtype(dtype: torch.dtype) -> None:
    tokens, x = given((0.0, 0.25), torch.bfloat16), draw(4).to(dtype)
    out = restore(x, tokens)
    assert out.dtype == dtype
    assert torch.equal(out[:, ::5], tokens.clean_BTC[:, ::5].to(dtype))
    assert torch.equal(out[:, 2::5], x[:, 2::5])
    expected = 0.25 * x[:, 1::5].double() + 0.75 * tokens.clean_BTC[:, 1::5].double()
    assert torch.allclose(out[:, 1::5].double(), expected, rtol=1e-2 if dtype == torch.bfloat16 else 1e-6, atol=1e-2)
    assert restore(x, None) is x
