"""On a CUDA device: the rotary kernel against its eager twin, and attention backends against math."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from conformance.errors import UnsupportedCase
from engine import picks
from engine.backends import attend
from engine.layers.rope import Rotary
from kernels import split_rotary_eager
from kernels.split_rotary_eager import ROUNDINGS

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from interpreted import differing, states, tables

pytestmark = pytest.mark.gpu
# (batch, batch of tables, tokens, heads, half): LTX-2 video and audio widths, and sizes that divide by nothing
SIZES = ((1, 1, 6144, 32, 64), (2, 1, 126, 32, 32), (2, 2, 45, 3, 5), (1, 1, 1, 1, 1))


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_bits_of_the_twin(dtype: torch.dtype, rounding: str, sizes: tuple[int, int, int, int, int]) -> None:
    batch, table_batch, tokens, heads, half = sizes
    x = states(batch, tokens, heads * 2 * half, dtype).cuda()
    cos, sin = (table.cuda() for table in tables(table_batch, tokens, heads, half))
    with picks.scope(kernels=True) as picked, torch.no_grad():
        ours = Rotary(cos, sin, rounding).apply(x)
    assert picked.ledger() == {"rotary": "triton"}
    assert differing(ours, split_rotary_eager.rotate(x, cos, sin, rounding)) == 0


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_bits_of_the_twin_at_any_bit_pattern(rounding: str) -> None:
    from kernels.split_rotary import rotate

    generator = torch.Generator().manual_seed(5)
    x = torch.randint(-(2**15), 2**15 - 1, (2, 512, 4096), generator=generator).short().view(torch.bfloat16).cuda()
    draw = torch.randint(-(2**31), 2**31 - 1, (2, 1, 32, 512, 64), generator=generator)
    cos, sin = draw.int().view(torch.float32).cuda()
    assert differing(rotate(x, cos, sin, rounding), split_rotary_eager.rotate(x, cos, sin, rounding)) == 0


def test_a_slice_of_heads_is_that_slice_of_the_whole() -> None:
    from kernels.split_rotary import rotate

    x = states(2, 45, 8 * 128, torch.bfloat16).cuda()
    cos, sin = (table.cuda() for table in tables(2, 45, 8, 64))
    local = x[..., 4 * 128 :].contiguous()
    whole = split_rotary_eager.rotate(x, cos, sin, "product-rounded")
    assert differing(rotate(local, cos[:, 4:], sin[:, 4:], "product-rounded"), whole[:, :, 4:].contiguous()) == 0


@pytest.mark.parametrize("backend", ["flash", "efficient", "cudnn"])
def test_attention_backends_agree_with_math(backend: str) -> None:
    q, k, v = (states(2, tokens, 512, torch.bfloat16, tokens).unflatten(2, (4, 128)).cuda() for tokens in (96, 80, 80))
    exact = attend(q.double(), k.double(), v.double(), None, "math")
    with picks.scope(kernels=False) as picked:
        out = attend(q, k, v, None, backend)
    assert picked.ledger() == {"attention": backend}
    assert float((out - exact).norm() / exact.norm()) < 5e-3  # bf16 rounds to 2^-9


@pytest.mark.parametrize("backend", ["flash", "fa3"])
def test_flash_attention_takes_no_mask(backend: str) -> None:
    q = states(1, 16, 64, torch.bfloat16).unflatten(2, (1, 64)).cuda()
    with pytest.raises(UnsupportedCase, match=f"'{backend}': takes no mask"):
        attend(q, q, q, torch.zeros(1, 16, dtype=torch.bfloat16, device="cuda"), backend)
