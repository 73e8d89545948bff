"""Gemma3 over two ranks against one device."""

from __future__ import annotations

import copy

import pytest
import torch
from engine_reference import DIFFUSERS
from parallel_cases import Output, case, engine, generate, on_all, on_ranks, relative, single
from ranks import run_ranks

from conformance.defects import parallel as defects
from conformance.defects.variants import Variant
from conformance.errors import InputError
from engine.models.gemma3.model import Gemma3TextModel
from engine.parallel import mesh
from engine.parallel.gemma3 import parallelize_gemma3


def states(model: Gemma3TextModel, variant: Variant | None = None, world: int = 2) -> torch.Tensor:
    """Of two prompts, one of them padded and longer than the sliding window."""
    ids = torch.randint(0, model.config.vocab_size, (2, 24), generator=torch.Generator().manual_seed(5))
    mask = torch.ones_like(ids)
    mask[1, :7] = 0
    if world == 1:
        return model(ids, mask)[mask.bool()]

    def run(at: mesh.Mesh) -> torch.Tensor:
        copied = copy.deepcopy(model)
        parallelize_gemma3(copied, at, DIFFUSERS)
        return copied(ids, mask)[mask.bool()]

    return on_all(world, run, variant)


@torch.inference_mode()
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.bfloat16, 6e-3)])
def test_gemma3(dtype: torch.dtype, bound: float) -> None:
    model = engine("ltx-2.3")._loader.common("fp32").parts.text.model
    model = copy.deepcopy(model).to(dtype)
    error = relative(states(model), states(model, world=1))
    assert error < bound
    with pytest.raises(AssertionError):
        states(model, defects.sums_dropped)
    with pytest.raises(InputError, match=r"text_encoder: 'num_key_value_heads' is 2; expected a multiple of tp, .* 4"):
        states(model, world=4)


def test_inside_a_run_where_the_layout_says_so() -> None:
    cut, whole = (case("ltx-2.3", "fp32", layout) for layout in ("tp2-text", "tp2"))
    expected = single(whole).taps
    mine, others = (on_ranks(each)[0] for each in (cut, whole))
    assert others.taps["text/pos/embeds"] == expected["text/pos/embeds"]
    assert mine.taps["text/pos/embeds"] != expected["text/pos/embeds"]
    assert mine.taps["text/pos/mask"] == expected["text/pos/mask"]
    assert 0 < mine.distance(others) < 1e-6
    assert on_ranks(cut, defects.text_heads_not_shared_out)[0].distance(others) > 1e-3

    def one_after_the_other(rank: int) -> Output:
        generate(cut)
        return generate(whole)  # what is kept from one case to the next was not cut

    assert all(output.equals(others) for output in run_ranks(2, one_after_the_other))
