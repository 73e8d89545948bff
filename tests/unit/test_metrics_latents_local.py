"""Metrics of single channels, tokens and mantissas of latents, against definitions written out here."""

from __future__ import annotations

import math
import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance.errors import InputError
from conformance.metrics import REGISTRY

channel, token, coarse = (
    REGISTRY[f"latents.{name}"].function for name in ("worst_channel", "worst_token", "coarse_share")
)


def latents(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*(shape or (12, 8)), generator=torch.Generator().manual_seed(seed))


def worst(a: torch.Tensor, b: torch.Tensor, axis: int) -> float:
    slices = [(x.flatten().tolist(), y.flatten().tolist()) for x, y in zip(a.unbind(axis), b.unbind(axis), strict=True)]
    differences = [math.sqrt(sum((p - q) ** 2 for p, q in zip(x, y, strict=True))) for x, y in slices]
    norms = [sum(q * q for q in y) for _, y in slices]
    return max(differences) / math.sqrt(sum(norms) / len(norms))


@pytest.mark.parametrize("shape", [(1, 1), (12, 8), (2, 5, 3), (2, 3, 4, 5)])
def test_slices_by_their_formula(shape: tuple[int, ...]) -> None:
    a, b = latents(1, *shape), latents(2, *shape)
    assert channel(a, b) == pytest.approx(worst(a, b, -1), rel=1e-6)
    assert token(a, b) == pytest.approx(worst(a, b, -2), rel=1e-6)


def is_bf16(value: float) -> bool:
    return struct.unpack("<I", struct.pack("<f", value))[0] & 0xFFFF == 0


def test_coarse_share_by_its_formula() -> None:
    a, b = latents(3), latents(4)
    a[0] = a[0].bfloat16().float()
    shares = [sum(map(is_bf16, side.flatten().tolist())) / side.numel() for side in (a, b)]
    assert coarse(a, b) == abs(shares[0] - shares[1]) > 0
    assert coarse(b.bfloat16().float(), b) == 1 - shares[1]
    assert coarse(b.half().float(), b) < 0.5  # half precision has three bits more
    assert coarse(b.bfloat16(), b.bfloat16()) == 0
    assert coarse(b.bfloat16(), a.bfloat16().float()) == 0


def test_one_bad_slice_of_many() -> None:
    base = latents(5, 64, 128)
    bad = base.clone()
    bad[:, 77] = 0
    assert REGISTRY["latents.rel_l2"].function(bad, base) < 0.11
    assert channel(bad, base) == pytest.approx(1, abs=0.2)
    bad = base.clone()
    bad[9] = 0
    assert token(bad, base) == pytest.approx(1, abs=0.2)
    assert token(bad, base) > 5 * REGISTRY["latents.rel_l2"].function(bad, base)


def test_edges() -> None:
    zero, one = torch.zeros(3, 4), torch.ones(3, 4)
    for function in (channel, token):
        assert function(zero, zero) == 0
        assert function(one, zero) == math.inf
        assert math.isnan(function(one * math.nan, one))
        with pytest.raises(InputError, match=r"latents are \[0, 4\]"):
            function(zero[:0], zero[:0])
    assert channel(torch.ones(4), torch.ones(4) * 2) == pytest.approx(0.5)
    with pytest.raises(InputError, match="along axis -2"):
        token(torch.ones(4), torch.ones(4))
    with pytest.raises(InputError, match="expected at least one value"):
        coarse(zero[:0], zero[:0])


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), strength=st.floats(0.01, 10))
def test_identity_and_growth(seed: int, strength: float) -> None:
    base, change = latents(seed), latents(seed + 1)
    for function in (channel, token):
        assert function(base, base.clone()) == 0
        assert 0 < function(base + strength * change, base) < function(base + 2 * strength * change, base)
    assert coarse(base, base.clone()) == 0
    assert coarse(base, change) == coarse(change, base)
    partly = [torch.where(torch.arange(96).reshape(12, 8) < n, base.bfloat16().float(), base) for n in (24, 60)]
    assert 0 < coarse(partly[0], base) < coarse(partly[1], base)
