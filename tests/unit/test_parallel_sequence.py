"""Ulysses sequence parallelism: bit for bit what one device does, whatever the counts of tokens."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import slow_parts
import torch
from engine_reference import ALL_GUIDANCE, DIFFUSERS, engine_dit, tiny_case, tiny_request
from parallel_cases import case, merged, on_ranks, relative, single
from parallel_dit import DTYPES, attention_alone, attention_on, forwards, on_mesh, operands, scenes, whole

from conformance.case import Guidance, ImageCondition, Layout, SecondStage
from conformance.defects import parallel as defects
from conformance.defects.variants import Variant
from conformance.errors import InputError
from engine.parallel import mesh, sequence, ulysses
from engine.parallel.ltx2 import parallelize_ltx2
from engine.parallel.sequence import Share

COUNTS = ((45, 45), (192, 192), (45, 17), (17, 45), (3, 2))  # queries, keys


@pytest.mark.parametrize("ranks", range(1, 9))
def test_shares_are_the_whole(ranks: int) -> None:
    for total in range(1, 70):
        shares = [Share(total=total, ranks=ranks, place=place) for place in range(ranks)]
        held = [token for share in shares for token in range(share.start, share.start + share.real)]
        assert held == list(range(total))
        assert len({share.size for share in shares}) == 1
        assert shares[0].size >= min(total, 4)


def test_taken_and_gathered() -> None:
    """Shares keep the memory order, have zeros behind the last token, and make up the whole again."""
    x_BTC = torch.randn(2, 6, 45).transpose(1, 2)

    def run(at: mesh.Mesh) -> tuple[torch.Tensor, tuple[int, ...], torch.Tensor]:
        share = sequence.taken(x_BTC, 1, at)
        return share, share.stride(), sequence.gathered(share, 45, at)

    for place, (share, strides, gathered) in enumerate(on_mesh("ulysses2-ring2", run)):
        start = place * 12
        assert share.shape == (2, 12, 6)
        assert torch.equal(share[:, : 45 - start], x_BTC[:, start : start + 12])
        assert not share[:, 45 - start :].any()
        assert strides == (72, 1, 12)
        assert torch.equal(gathered, x_BTC)
        assert gathered.is_contiguous()


def test_heads_for_tokens_and_back() -> None:
    x_BTHd = torch.arange(2 * 8 * 4 * 3.0).view(2, 8, 4, 3)

    def run(at: mesh.Mesh) -> tuple[torch.Tensor, torch.Tensor]:
        heads = ulysses.to_heads(sequence.taken(x_BTHd, 1, at), at)
        return heads, ulysses.to_tokens(heads, at)

    for rank, (heads, tokens) in enumerate(on_mesh("ulysses2", run)):
        assert torch.equal(heads, x_BTHd[:, :, 2 * rank : 2 * rank + 2])
        assert torch.equal(tokens, x_BTHd[:, 4 * rank : 4 * rank + 4])


@pytest.mark.parametrize("layout", ["ulysses2", "ulysses4"])
@pytest.mark.parametrize("backend", ["sdpa", "math", "flash"])
def test_attention_is_exact(layout: str, backend: str) -> None:
    each = [operands(dtype, *counts, batch=batch) for dtype in DTYPES for counts in COUNTS for batch in (1, 2)]
    ours = attention_on(layout, each, backend)
    assert all(torch.equal(a, b) for a, b in zip(ours, attention_alone(each, backend), strict=True))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["ulysses2", "ulysses4"])
@pytest.mark.parametrize("model", slow_parts.MODELS)
def test_forward_is_exact(model: str, layout: str, dtype: torch.dtype) -> None:
    inputs = scenes(model, dtype)
    expected = whole(model, dtype, inputs)
    for name, velocities in forwards(model, dtype, layout, inputs).items():
        for ours, theirs in zip(velocities, expected[name], strict=True):
            assert torch.equal(ours, theirs), name
            assert ours.is_contiguous()


def test_positions_of_a_share_are_those_of_the_whole() -> None:
    model = engine_dit("ltx-2.3", torch.float32)
    inputs = scenes("ltx-2.3", torch.float32)["odd"]

    def run(at: mesh.Mesh) -> list[torch.Tensor]:
        shares = replace(
            inputs,
            video_bounds=sequence.taken(inputs.video_bounds, 2, at),
            audio_bounds=sequence.taken(inputs.audio_bounds, 2, at),
        )
        return tables(shares, at)

    def tables(each: object, at: mesh.Mesh | None = None) -> list[torch.Tensor]:
        ropes = [rope for stream in model._ropes(each, DIFFUSERS) for rope in stream]  # type: ignore[arg-type]
        return [x.transpose(1, 2) for rope in ropes for x in (rope.cos_BHTR, rope.sin_BHTR)]

    for place, shares in enumerate(on_mesh("ulysses4", run)):
        for share, table in zip(shares, tables(inputs), strict=True):
            start = place * share.shape[1]
            expected = table[:, start : start + share.shape[1]]
            assert torch.equal(share[:, : expected.shape[1]], expected)


@pytest.mark.parametrize(
    ("layout", "dtype", "numerics"),
    # a pair of branches in strided memory, single branches with a noise level by token in contiguous memory
    [
        ("ulysses2", "fp32", "diffusers"),
        ("ulysses2", "bf16", "official-1.2.0"),
        ("ulysses4", "bf16", "diffusers"),
        ("ulysses4", "fp32", "official-1.2.0"),
        ("cfg2-ulysses2", "bf16", "diffusers"),
    ],
)
def test_generate_is_exact_to_the_last_tap(layout: str, dtype: str, numerics: str) -> None:
    spread = case("ltx-2.3", dtype, layout, numerics, **ALL_GUIDANCE)
    expected, outputs = single(spread, depth="block"), on_ranks(spread, depth="block")
    assert all(output.equals(expected) for output in outputs)
    assert merged(outputs) == expected.taps


@pytest.mark.parametrize(("numerics", "strength"), [("diffusers", 1.0), ("official-1.2.0", 0.6)])
def test_given_frame(numerics: str, strength: float) -> None:
    image = ImageCondition(picture="rings", height=64, width=96, crf=0, strength=strength)
    layout, request = Layout.parse("ulysses2"), tiny_request(image=image, **ALL_GUIDANCE)
    spread = tiny_case("ltx-2.3", "fp32", request, pipeline="one-stage-ti2v", layout=layout, numerics=numerics)
    expected, outputs = single(spread), on_ranks(spread)
    assert all(output.equals(expected) for output in outputs)


def test_two_stages_and_half_steps() -> None:
    second = SecondStage(sigmas=(0.9, 0.4), lora_first=0.25, lora_second=0.5)
    one = case("ltx-2.3", "bf16", "ulysses2", height=128, width=128, **ALL_GUIDANCE)
    spread = replace(one, pipeline="two-stage-hq-t2v", request=replace(one.request, second=second))
    expected, outputs = single(spread), on_ranks(spread)
    assert all(output.equals(expected) for output in outputs)
    assert merged(outputs) == expected.taps


def test_with_tensor_parallelism_nothing_more_is_lost() -> None:
    both, alone = (case("ltx-2.3", "bf16", layout, **ALL_GUIDANCE) for layout in ("ulysses2-tp2", "tp2"))
    expected, outputs = on_ranks(alone, depth="block")[0], on_ranks(both, depth="block")
    assert all(output.equals(expected) for output in outputs)
    assert merged(outputs) == expected.taps


@pytest.mark.parametrize(("layout", "parts"), [("ulysses3", 3), ("ulysses3-tp2", 6)])
def test_indivisible_heads_are_refused(layout: str, parts: int) -> None:
    model = engine_dit("ltx-2.3", torch.float32)
    message = rf"transformer_blocks.0.attn1: 'heads' is 4; expected a multiple of tp \* ulysses, which is {parts}"
    with pytest.raises(InputError, match=message):
        on_mesh(layout, lambda at: parallelize_ltx2(copy.deepcopy(model), at, DIFFUSERS))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("variant", "scene", "floor"),
    [
        (defects.positions_from_the_start, "divisible", 2e-2),
        (defects.positions_from_the_start, "odd", 2e-2),
        (defects.padding_seen_in_v2a, "odd", 1e-3),
        (defects.padding_seen_in_v2a, "divisible", None),
        (defects.padding_seen_in_v2a, "no V2A", None),
    ],
)
def test_defects_of_a_forward_are_seen(variant: Variant, scene: str, floor: float | None, dtype: torch.dtype) -> None:
    """Padding shows only where there is some."""
    inputs = {scene: scenes("ltx-2.3", dtype)[scene]}
    ours, expected = forwards("ltx-2.3", dtype, "ulysses2", inputs, variant)[scene], whole("ltx-2.3", dtype, inputs)
    error = max(relative(a, b) for a, b in zip(ours, expected[scene], strict=True))
    if floor is None:
        assert error == 0
    else:
        assert error > floor


def test_text_counted_by_every_rank_is_seen_by_its_bits() -> None:
    """Weights of repeated keys are halved and added up again: distances see nothing of it, bit equality does."""
    inputs = scenes("ltx-2.3", torch.float32)
    expected = whole("ltx-2.3", torch.float32, inputs)
    variant = defects.text_counted_by_every_rank
    for name, ours in forwards("ltx-2.3", torch.float32, "ulysses2", inputs, variant).items():
        assert 0 < relative(ours[0], expected[name][0]) < 1e-6


RESCALED = Guidance(cfg=4.0, stg=0.0, modality=1.0, rescale=0.7)


@pytest.mark.parametrize(("variant", "floor"), [(defects.noise_by_rank, 0.1), (defects.rescaled_by_rank, 2e-3)])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_defects_around_the_forward_are_seen(variant: Variant, floor: float, dtype: str) -> None:
    spread = case("ltx-2.3", dtype, "ulysses2", video_guidance=RESCALED, audio_guidance=RESCALED)
    assert on_ranks(spread, variant)[0].distance(single(spread)) > floor
