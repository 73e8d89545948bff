"""Ring attention, alone and with Ulysses: within the rounding of one device, and as near to the truth as its kernel.

Bounds are about twice what was measured on a CPU (docs/parallel-engine.md).
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import slow_parts
import torch
from engine_reference import ALL_GUIDANCE, DIFFUSERS, engine_dit
from parallel_cases import case, merged, on_ranks, relative, single
from parallel_dit import DTYPES, attention_alone, attention_on, forwards, on_mesh, operands, scenes, whole

from conformance.case import Override
from conformance.defects import parallel as defects
from conformance.errors import UnsupportedCase
from engine.parallel import ring
from engine.parallel.ltx2 import parallelize_ltx2

COUNTS = ((45, 45), (192, 192), (45, 17), (17, 45), (3, 2), (192, 16))  # queries, keys
LAYOUTS = ("ring2", "ring4", "ulysses2-ring2")
ATTENTION_BOUND = {torch.float32: 4e-7, torch.bfloat16: 2.5e-3}
FORWARD_BOUND = {torch.float32: 1e-6, torch.bfloat16: 1.8e-2}


def truth(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Attention in float64."""
    q, k, v = (x.double().transpose(1, 2) for x in (q, k, v))
    return (torch.softmax(q @ k.transpose(2, 3) * q.shape[-1] ** -0.5, -1) @ v).transpose(1, 2)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_attention(layout: str, dtype: torch.dtype) -> None:
    """In bf16 it rounds once, as torch's math kernel does; the flash kernel rounds the weights too."""
    each = [operands(dtype, *counts) for counts in COUNTS]
    kernel, math = attention_alone(each), attention_alone(each, "math")
    for ours, one, plain, given in zip(attention_on(layout, each), kernel, math, each, strict=True):
        assert ours.dtype == dtype
        assert relative(ours, one) < ATTENTION_BOUND[dtype]
        exact = truth(*given)
        assert relative(ours, exact) < 1.2 * relative(one, exact)
        if dtype == torch.bfloat16:
            assert relative(ours, plain) < 3e-4


def test_scores_beyond_the_range_of_the_exponential() -> None:
    """exp of a score of a thousand is no float32; relative to the largest it is 1, and the largest comes last."""
    q, k, v = operands(torch.float32, 16, 32)
    k = k * 200
    largest = (q.transpose(1, 2) @ k.permute(0, 2, 3, 1)).max() / 4
    assert largest > 1000
    ours = attention_on("ring4", [[q, k, v]])[0]
    assert relative(ours, truth(q, k, v)) < 2e-5


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("model", slow_parts.MODELS)
def test_forward(model: str, layout: str, dtype: torch.dtype) -> None:
    inputs = scenes(model, dtype)
    expected = whole(model, dtype, inputs)
    for name, velocities in forwards(model, dtype, layout, inputs).items():
        for ours, theirs in zip(velocities, expected[name], strict=True):
            assert relative(ours, theirs) < FORWARD_BOUND[dtype], name


@pytest.mark.parametrize("layout", ["ring2", "ulysses2-ring2", "ring2-tp2"])
def test_generate(layout: str) -> None:
    spread = case("ltx-2.3", "fp32", layout, **ALL_GUIDANCE)
    expected, outputs = single(spread, depth="block"), on_ranks(spread, depth="block")
    assert all(output.equals(outputs[0]) for output in outputs)
    assert outputs[0].distance(expected) < 2.5e-6
    taps = merged(outputs)
    assert {name: shape for name, (shape, _) in taps.items()} == {
        name: shape for name, (shape, _) in expected.taps.items()
    }
    first = "step.000/cond/block.00/attn1"
    if "tp" not in layout:  # what comes before any exchange is the same tensor
        assert taps[f"{first}/q_norm"] == expected.taps[f"{first}/q_norm"]


def test_without_rescaling_is_seen() -> None:
    for dtype, floor in ((torch.float32, 1e-2), (torch.bfloat16, 3e-2)):
        each = [operands(dtype, 45, 45)]
        ours = attention_on("ring2", each, variant=defects.ring_not_rescaled)
        assert relative(ours[0], attention_alone(each)[0]) > floor


@pytest.mark.parametrize("dtype", DTYPES)
def test_padding_seen_in_v2a_is_seen(dtype: torch.dtype) -> None:
    inputs = {"odd": scenes("ltx-2.3", dtype)["odd"]}
    ours = forwards("ltx-2.3", dtype, "ring4", inputs, defects.padding_seen_in_v2a)["odd"]
    assert relative(ours[1], whole("ltx-2.3", dtype, inputs)["odd"][1]) > 1.5 * FORWARD_BOUND[dtype]


@pytest.mark.parametrize(("field", "value", "expected"), [("attention", "math", "sdpa"), ("autocast", "model", "off")])
def test_other_kernels_are_refused(field: str, value: str, expected: str) -> None:
    model = engine_dit("ltx-2.3", torch.bfloat16)
    numerics = replace(DIFFUSERS, **{field: value})
    message = f"{field!r} is {value!r}; under ring attention it is {expected!r}"
    with pytest.raises(UnsupportedCase, match=message):
        ring.check(numerics)
    with pytest.raises(UnsupportedCase, match=message):
        on_mesh("ring2", lambda at: parallelize_ltx2(model, at, numerics))


def test_the_math_kernel_of_one_device_is_as_near_in_bf16() -> None:
    """What ring does to a bf16 case is what another kernel does to it on one device."""
    spread = case("ltx-2.3", "bf16", "ring2", **ALL_GUIDANCE)
    expected, ours = single(spread), on_ranks(spread)[0]
    other = single(replace(spread, overrides=(Override(field="attention", value="math"),)))
    assert ours.distance(expected) < 2 * other.distance(expected)
