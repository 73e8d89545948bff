"""The oracle's rule on constructed errors: re-rounding, bias, scale, a better side, noise; and its error rates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance.oracle import MARGIN, NEAR, WORST_FIRST, Finding, judge, judge_all, worst

SHAPE = (1, 72, 128)  # the video tokens of a tiny case
SWAPPED = {"REGRESSION": "REFERENCE_WORSE", "REFERENCE_WORSE": "REGRESSION"}


def _draw(seed: int, shape: tuple[int, ...] = SHAPE) -> tuple[torch.Generator, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return generator, torch.randn(shape, generator=generator, dtype=torch.float64)


def _noise(generator: torch.Generator, shape: tuple[int, ...] = SHAPE, size: float = 1e-3) -> torch.Tensor:
    return size * torch.randn(shape, generator=generator, dtype=torch.float64)


def _names(make: Callable[[int], Finding], seeds: int = 200) -> Counter[str]:
    return Counter(make(seed).finding for seed in range(seeds))


def test_pure_rerounding_is_benign_two_hundred_times_of_two_hundred() -> None:
    """bf16 of sums in two orders: equal errors, other bits."""

    def make(seed: int) -> Finding:
        generator, truth = _draw(seed)
        parts = _noise(generator, (2, *SHAPE), 0.5)
        whole = truth + parts.sum(0)

        def rounded(order: tuple[int, ...]) -> torch.Tensor:
            x = truth.bfloat16()
            for index in order:
                x = x + parts[index].bfloat16()
            return x

        return judge("x", rounded((0, 1)), rounded((1, 0)), whole)

    assert _names(make) == {"BENIGN_REROUND": 200}


@pytest.mark.parametrize("factor", [1.0, 1.05])
def test_errors_of_a_size_are_benign(factor: float) -> None:
    def make(seed: int) -> Finding:
        generator, truth = _draw(seed)
        return judge("x", truth + factor * _noise(generator), truth + _noise(generator), truth)

    assert _names(make) == {"BENIGN_REROUND": 200}


def test_a_larger_error_is_a_regression_and_the_other_way_round_the_reference_is_worse() -> None:
    def make(seed: int) -> Finding:
        generator, truth = _draw(seed)
        return judge("x", truth + 1.3 * _noise(generator), truth + _noise(generator), truth)

    def swapped(seed: int) -> Finding:
        generator, truth = _draw(seed)
        return judge("x", truth + _noise(generator), truth + 1.3 * _noise(generator), truth)

    assert _names(make) == {"REGRESSION": 200}
    assert _names(swapped) == {"REFERENCE_WORSE": 200}


@pytest.mark.parametrize("kind", ["constant", "scale", "truncated"])
def test_a_systematic_error_of_the_same_size_is_a_regression(kind: str) -> None:
    """A bias of 0.4 of the error, and cutting bits off instead of rounding."""

    def make(seed: int) -> Finding:
        generator, truth = _draw(seed)
        noise, other = _noise(generator), _noise(generator)
        if kind == "truncated":
            bits = truth.float().view(torch.int32)
            cut = (bits & ~0xFFFF).view(torch.float32)
            stochastic = ((bits + torch.randint(0, 2**16, SHAPE, generator=generator).int()) & ~0xFFFF).view(
                torch.float32
            )
            return judge("x", cut, stochastic, truth.float())
        bias = torch.ones(SHAPE) if kind == "constant" else truth
        return judge("x", truth + 0.9165 * noise + 0.4e-3 * bias, truth + other, truth)

    assert _names(make, 100) == {"REGRESSION": 100}


def test_a_small_bias_is_no_regression() -> None:
    def make(seed: int) -> Finding:
        generator, truth = _draw(seed)
        return judge("x", truth + _noise(generator) + 0.1e-3, truth + _noise(generator), truth)

    assert _names(make) == {"BENIGN_REROUND": 200}


def test_a_difference_far_below_both_errors_is_noise() -> None:
    generator, truth = _draw(0)
    shared, apart = _noise(generator), _noise(generator)
    near = judge("x", truth + shared + 0.9 * NEAR * apart, truth + shared, truth)
    far = judge("x", truth + shared + 1.2 * NEAR * apart, truth + shared, truth)
    assert (near.finding, far.finding) == ("NOISE", "BENIGN_REROUND")


def test_an_error_beside_a_perfect_side_is_never_benign() -> None:
    generator, truth = _draw(0)
    off = truth + _noise(generator)
    assert judge("x", off, truth, truth).finding == "REGRESSION"
    assert judge("x", truth, off, truth).finding == "REFERENCE_WORSE"


def test_few_tokens_prove_less() -> None:
    """An error larger by a quarter: proved by many tokens, not by three that differ among themselves."""
    generator, truth = _draw(0, (1, 3, 128))
    uneven = torch.tensor([3.0, 1.0, 0.2])[None, :, None]
    candidate = truth + 1.25 * uneven * _noise(generator, (1, 3, 128))
    reference = truth + uneven.flip(1) * _noise(generator, (1, 3, 128))
    assert judge("x", candidate, reference, truth).finding == "BENIGN_REROUND"
    one = judge("x", candidate[:, :1], reference[:, :1], truth[:, :1])
    assert one.finding == "BENIGN_REROUND"


def test_the_numbers_are_those_of_the_definition() -> None:
    generator, truth = _draw(0)
    candidate, reference = truth + _noise(generator) + 1e-3, truth + _noise(generator)
    found = judge("final/video", candidate, reference, truth)
    error_c, error_r = candidate - truth, reference - truth
    assert found.candidate_error == pytest.approx(float(error_c.norm() / truth.norm()), rel=1e-12)
    assert found.reference_error == pytest.approx(float(error_r.norm() / truth.norm()), rel=1e-12)
    assert found.rms_ratio == pytest.approx(float(error_c.norm() / error_r.norm()), rel=1e-12)
    assert found.bias == pytest.approx(float(error_c.mean() / error_c.square().mean().sqrt()), rel=1e-12)
    assert found.sentence.startswith("the candidate is farther from the truth. final/video: 0.00")


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    factor=st.floats(0.2, 5.0),
    bias=st.floats(-1.0, 1.0),
    scale=st.sampled_from([1.0, 2.0**10, 2.0**-10]),
)
def test_sides_are_treated_alike_and_units_do_not_matter(seed: int, factor: float, bias: float, scale: float) -> None:
    generator, truth = _draw(seed, (2, 20, 16))
    candidate = truth + factor * _noise(generator, truth.shape) + bias * 1e-3
    reference = truth + _noise(generator, truth.shape)
    one = judge("x", scale * candidate, scale * reference, scale * truth)
    other = judge("x", reference, candidate, truth)
    assert other.finding == SWAPPED.get(one.finding, one.finding)
    assert one.rms_ratio * other.rms_ratio == pytest.approx(1.0, rel=1e-9)
    if one.finding == "BENIGN_REROUND":
        assert one.rms_ratio < (1 + MARGIN) * 2  # only few tokens leave more open


def test_the_worst_output_counts_for_the_case() -> None:
    generator, truth = _draw(0)
    better, worse = truth + _noise(generator), truth + 2 * _noise(generator)
    names = ("a", "b", "c")
    found = judge_all(
        {"a": better, "b": worse, "c": worse},
        {"a": worse, "b": better, "c": worse},
        dict.fromkeys(names, truth),
    )
    assert found is not None
    assert (found.finding, found.output) == ("REGRESSION", "b")
    assert judge_all({"a": better}, {"a": better}, {"a": truth}) is None
    each = [judge(name, better, worse, truth) for name in names]
    assert worst(each).finding == "REFERENCE_WORSE"
    assert WORST_FIRST[0] == "REGRESSION"
    far = judge("far", truth + 3 * _noise(generator), better, truth)
    near = judge("near", worse, better, truth)
    assert worst([near, far]) == worst([far, near]) == far
