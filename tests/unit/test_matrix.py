"""The matrix covers what it says, and selections mean what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from hypothesis import given
from hypothesis import strategies as st

from conformance.errors import InputError
from conformance.matrix import all_cases, parse_shard, select, shard
from conformance.matrix.ltx2_requests import sigmas

CASES = all_cases()


def test_the_first_matrix_has_every_combination() -> None:
    axes = {(case.model, case.dtype, case.variant) for case in CASES}
    for model in ("ltx-2", "ltx-2.3"):
        for dtype in ("fp32", "bf16"):
            for variant in ("unguided", "cfg", "all-guidance", "all-guidance-odd", "cfg-batch2"):
                assert (model, dtype, variant) in axes
    assert len(CASES) >= 16
    assert min(case.request.steps for case in CASES) >= 4
    assert len({case.request.frame_rate for case in CASES}) >= 2
    assert len({case.request.seed for case in CASES}) >= 3
    assert len({len(case.request.prompts) for case in CASES}) == 2


def test_some_token_counts_divide_by_neither_8_nor_16() -> None:
    counts = {((c.request.num_frames - 1) // 8 + 1) * (c.request.height // 32) * (c.request.width // 32) for c in CASES}
    assert any(count % 8 for count in counts)
    assert any(count % 8 == 0 for count in counts)


def test_noise_levels_are_those_of_the_diffusers_scheduler() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True,
        base_shift=0.95,
        max_shift=2.05,
        base_image_seq_len=1024,
        max_image_seq_len=4096,
        shift_terminal=0.1,
    )
    for steps, tokens in ((4, 4096), (30, 4096), (7, 1500)):
        mu = 0.95 + (2.05 - 0.95) / (4096 - 1024) * (tokens - 1024)
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu)
        torch.testing.assert_close(torch.tensor(sigmas(steps, tokens)), scheduler.sigmas[:-1], rtol=0, atol=2e-7)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("ltx-2.3", lambda c: c.model == "ltx-2.3"),
        ("ltx-2", lambda c: c.model == "ltx-2"),
        ("ltx-2/one-stage-t2v/cfg", lambda c: c.id.startswith("ltx-2/one-stage-t2v/cfg@")),
        ("*-bf16", lambda c: c.dtype == "bf16"),
        ("*/cfg@*", lambda c: c.variant == "cfg"),
        (CASES[3].id, lambda c: c is CASES[3]),
    ],
)
def test_patterns_select_by_glob_or_leading_parts(pattern: str, expected) -> None:
    chosen = select(CASES, [pattern], "default")
    assert chosen == [case for case in CASES if expected(case) and "default" in case.suites]
    assert chosen
    assert select(CASES, [pattern], "full") == [case for case in CASES if expected(case)]


def test_a_pattern_of_another_suite_means_its_cases() -> None:
    official = [case for case in CASES if case.numerics == "official-1.0.0"]
    assert official
    assert not any("default" in case.suites for case in official)
    assert select(CASES, ["*+official-1.0.0*"], "default") == official


def test_a_case_named_twice_runs_once_and_in_matrix_order() -> None:
    default = [case for case in CASES if "default" in case.suites]
    assert select(CASES, ["*fp32", default[0].id, "*"], "default") == default


@pytest.mark.parametrize("pattern", ["ltx-9", "ltx-2.3/one-stage-t2v/cgf", ""])
def test_a_pattern_that_matches_nothing_is_refused_by_name(pattern: str) -> None:
    with pytest.raises(InputError, match="no case matches"):
        select(CASES, [pattern], "default")


def test_a_typo_is_answered_with_the_nearest_id() -> None:
    with pytest.raises(InputError, match="nearest is 'ltx-2/one-stage-t2v/cfg@single"):
        select(CASES, ["ltx-2/one-stage-t2v/cgf@single+diffusers-fp32"], "default")


def test_a_whole_id_names_one_case_whether_kernels_are_on_or_off() -> None:
    fused = [case for case in CASES if case.kernels == "on"]
    assert {(case.model, case.variant, case.dtype) for case in fused} == {
        ("ltx-2.3", "all-guidance", "bf16"),
        ("ltx-2.3", "unguided", "fp32"),
    }
    for case in fused:
        assert select(CASES, [case.id], "default") == [case]
        (plain,) = select(CASES, [case.id.removesuffix("+kernels")], "default")
        assert plain.kernels == "off"
    assert select(CASES, ["*+kernels"], "default") == fused


def test_an_unknown_suite_is_refused() -> None:
    with pytest.raises(InputError, match="suite"):
        select(CASES, [], "nightly")


@given(total=st.integers(1, 40))
def test_shards_partition_the_cases(total: int) -> None:
    parts = [shard(CASES, index, total) for index in range(1, total + 1)]
    assert sorted(case.id for part in parts for case in part) == sorted(case.id for case in CASES)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("text", ["", "1", "0/2", "3/2", "1/0", "-1/2", "a/b", "1/2/3", "1 /2"])
def test_bad_shards_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="i/n"):
        parse_shard(text)
