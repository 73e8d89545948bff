"""Gemma3 bit by bit against transformers: every hidden state at every position, padding included."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from gemma3_reference import ODD, batch, engine, hidden_states, reference, save
from transformers.models.gemma3.modeling_gemma3 import apply_rotary_pos_emb

from engine.models.gemma3.config import Rope
from engine.models.gemma3.model import Gemma3TextModel, visible
from engine.models.gemma3.rope import RotaryTable, rotate
from reference_impl.tiny.build import cached

DTYPES = (torch.float32, torch.bfloat16)
TINY = cached("ltx-2.3") / "text_encoder"
# prompts shorter and longer than the window; nothing but the first token; no padding, above and below the window
LENGTHS = [((32, 5, 17), 32), ((1, 1), 32), ((30,), 30), ((32, 32), 32), ((4,), 4), ((2, 4), 4), ((200,), 256)]


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("odd"), **ODD)


@cache
def pair(folder: Path, dtype: torch.dtype) -> tuple[Gemma3TextModel, Any]:
    return engine(folder, dtype), reference(folder, dtype)


@torch.inference_mode()
def check(folder: Path, dtype: torch.dtype, lengths: tuple[int, ...], total: int) -> None:
    ours, theirs = pair(folder, dtype)
    ids, mask = batch(lengths, total, ours.config.vocab_size)
    states, expected = ours(ids, mask), hidden_states(theirs, ids, mask)
    assert states.shape == (*ids.shape, ours.config.hidden_size, ours.config.num_hidden_layers + 1)
    assert states.dtype == expected.dtype == dtype
    assert expected.isfinite().all()
    for index, (state, other) in enumerate(zip(states.unbind(-1), expected.unbind(-1), strict=True)):
        assert torch.equal(state, other), f"hidden state {index}"


@pytest.mark.parametrize(("lengths", "total"), LENGTHS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_tiny_checkpoint(dtype: torch.dtype, lengths: tuple[int, ...], total: int) -> None:
    check(TINY, dtype, lengths, total)


@pytest.mark.parametrize(("lengths", "total"), LENGTHS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_other_sizes(odd: Path, dtype: torch.dtype, lengths: tuple[int, ...], total: int) -> None:
    check(odd, dtype, lengths, total)


@pytest.mark.parametrize("dtype", DTYPES)
def test_table_rows_do_not_depend_on_its_length(dtype: torch.dtype) -> None:
    theirs = pair(TINY, dtype)[1].model.language_model.rotary_emb
    tables = {
        "sliding_attention": RotaryTable(Rope(theta=1e4, factor=1.0), 16),
        "full_attention": RotaryTable(Rope(theta=1e6, factor=8.0), 16),
    }
    x = torch.randn(1, 3, 1024, 16, generator=torch.Generator().manual_seed(1)).to(dtype)
    for kind, table in tables.items():
        for length in (7, 1024, 33):
            positions = torch.arange(length)
            rows = table.lookup(positions, dtype)
            expected = theirs(x, positions[None], kind)
            assert all(torch.equal(row, other[0]) for row, other in zip(rows, expected, strict=True))
            part = x[:, :, :length]
            assert torch.equal(rotate(part, *rows), apply_rotary_pos_emb(part, part, *expected)[0])


@torch.inference_mode()
def test_positions_count_the_padding() -> None:
    """The rotation is relative, so only rounding tells: the same prompt at another index has other low bits."""
    ours = pair(TINY, torch.float32)[0]
    ids, mask = batch((20,), 64, 256)
    padded = ours(ids, mask)[:, 44:]
    alone = ours(ids[:, 44:], mask[:, 44:])
    torch.testing.assert_close(padded, alone, rtol=1e-4, atol=1e-4)
    assert not torch.equal(padded, alone)


def test_visible() -> None:
    full, short = torch.ones(1, 4, dtype=torch.int64), torch.tensor([[0, 1, 1, 1]])
    assert visible(full, None) is None
    assert visible(full, 5) is None
    assert visible(full, 4) is not None  # no key hidden, but the masked kernel, as in transformers
    seen = visible(full, 2)
    assert seen is not None
    assert seen.tolist() == [[[[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]]]
    seen = visible(short, None)
    assert seen is not None
    assert seen.tolist() == [[[[0, 0, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0], [0, 1, 1, 1]]]]


@torch.inference_mode()
def test_projections_can_be_cut_by_heads(odd: Path) -> None:
    """Two shards of one layer's heads, summed after the output projection, are the layer."""
    attention: Any = engine(odd, torch.float32).layers[0].self_attn
    x = torch.randn(2, 9, 60, generator=torch.Generator().manual_seed(2))
    rows, seen = RotaryTable(Rope(theta=70.0, factor=1.0), 10).lookup(torch.arange(9), x.dtype), None
    whole, total = attention(x, rows, seen), torch.zeros(())
    weights = {name: getattr(attention, name).weight.data for name in ("q_proj", "k_proj", "v_proj", "o_proj")}
    for rank in range(2):
        for name, weight in weights.items():
            getattr(attention, name).weight.data = weight.chunk(2, dim=1 if name == "o_proj" else 0)[rank]
        total = total + attention(x, rows, seen)
    torch.testing.assert_close(total, whole, rtol=1e-5, atol=1e-5)
