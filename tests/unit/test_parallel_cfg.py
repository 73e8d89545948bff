"""CFG parallelism: bit for bit what one device does, whatever the branches and however many ranks."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from engine_reference import ALL_GUIDANCE
from parallel_cases import case, merged, on_ranks, single
from ranks import run_ranks

from conformance.case import Guidance, Layout, SecondStage
from conformance.defects import parallel as defects
from conformance.errors import ConformanceError
from engine.parallel import cfg, mesh

CFG_ONLY = Guidance(cfg=4.0, stg=0.0, modality=1.0, rescale=0.0)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize(
    ("layout", "numerics"),
    # pair, stg, modality on 2 and 3 ranks; four single branches on 4; strided states and contiguous ones
    [("cfg2", "diffusers"), ("cfg3", "diffusers"), ("cfg4", "official-1.0.0"), ("cfg2", "official-1.2.0")],
)
def test_all_branches(layout: str, numerics: str, dtype: str) -> None:
    spread = case("ltx-2.3", dtype, layout, numerics, **ALL_GUIDANCE)
    expected, outputs = single(spread), on_ranks(spread)
    assert all(output.equals(expected) for output in outputs)
    assert merged(outputs) == expected.taps
    # each rank ran its own forwards alone
    assert all(len(output.taps) < len(expected.taps) for output in outputs)


@pytest.mark.parametrize("layout", ["cfg2", "cfg4"])
def test_ranks_without_a_forward_receive(layout: str) -> None:
    spread = case("ltx-2", "bf16", layout, video_guidance=CFG_ONLY)  # one forward, of a pair
    expected, outputs = single(spread), on_ranks(spread)
    assert all(output.equals(expected) for output in outputs)
    assert merged(outputs) == expected.taps
    assert not any("velocity" in name for output in outputs[1:] for name in output.taps)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_two_stages_and_half_steps(dtype: str) -> None:

    second = SecondStage(sigmas=(0.9, 0.4), lora_first=0.25, lora_second=0.5)
    spread = case("ltx-2.3", dtype, "cfg2", height=128, width=128, second=None, **ALL_GUIDANCE)
    request = replace(spread.request, second=second)
    spread = replace(spread, pipeline="two-stage-hq-t2v", request=request)
    expected, outputs = single(spread), on_ranks(spread)
    assert all(output.equals(expected) for output in outputs)
    assert merged(outputs) == expected.taps
    assert any(".mid/" in name for name in expected.taps)


def test_with_tensor_parallelism_nothing_more_is_lost() -> None:
    both, alone = (case("ltx-2.3", "bf16", layout, **ALL_GUIDANCE) for layout in ("cfg2-tp2", "tp2"))
    expected = on_ranks(alone)[0]
    outputs = on_ranks(both)
    assert all(output.equals(expected) for output in outputs)
    assert merged(outputs) == expected.taps


def test_received_x0_keeps_bits_and_strides() -> None:
    """-0.0 stays, and a strided tensor is received as strided as it was: later sums follow the memory order."""
    sent = torch.tensor([[[-0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]]).transpose(1, 2)

    def receive(rank: int) -> tuple[torch.Tensor, tuple[int, ...]]:
        places = mesh.make(Layout.parse("cfg2-tp2"), torch.device("cpu"))
        x0 = sent.clone() if places.index("cfg") == 1 else torch.empty_strided(sent.shape, sent.stride())
        out = cfg.received(x0, 1, places)
        return out, out.stride()

    for got, strides in run_ranks(4, receive):
        assert got.equal(sent)
        assert got[0, 0, 0].signbit()
        assert strides == sent.stride()


def test_folded_coefficients_are_seen() -> None:
    """In bf16 arithmetic of the guider, by far more than rounding; in fp32 by its bits."""
    for dtype, numerics, floor in (("bf16", "official-1.0.0", 5e-3), ("fp32", "diffusers", 1e-7)):
        spread = case("ltx-2.3", dtype, "cfg2", numerics, **ALL_GUIDANCE)
        expected, outputs = single(spread), on_ranks(spread, defects.cfg_folded)
        assert outputs[0].distance(expected) > floor


def test_a_source_counted_within_the_group_is_no_member_of_it() -> None:
    """With cfg2-tp2 the groups are 0,2 and 1,3: torch refuses rank 1 as a source of the first."""
    spread = case("ltx-2.3", "fp32", "cfg2-tp2", **ALL_GUIDANCE)
    with pytest.raises(ConformanceError, match="is not part of group"):
        on_ranks(spread, defects.source_in_group)
