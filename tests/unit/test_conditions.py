"""Conditions that must not matter: each changes what it says, and nothing when it is over."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional

from conformance.case import Override
from conformance.defects.conditions import Neighbours, ShiftedMemory, conditions, threads
from conformance.matrix import all_cases

CASE = next(case for case in all_cases() if case.layout.world == 1)


def operations() -> dict[str, tuple[Callable[..., torch.Tensor], tuple[torch.Tensor, ...], dict[str, Any]]]:
    torch.manual_seed(0)
    x, heads = torch.randn(2, 5, 8), torch.randn(2, 3, 5, 4)
    return {
        "linear": (functional.linear, (x, torch.randn(6, 8), torch.randn(6)), {}),
        "conv1d": (functional.conv1d, (x, torch.randn(4, 5, 3)), {"padding": 1}),
        "conv3d": (functional.conv3d, (torch.randn(2, 3, 4, 4, 4), torch.randn(2, 3, 2, 2, 2)), {}),
        "conv_transpose1d": (functional.conv_transpose1d, (x, torch.randn(5, 2, 3)), {"stride": 2}),
        "linear, no batch": (functional.linear, (torch.randn(8), torch.randn(20, 8)), {}),
        "conv1d, no batch": (functional.conv1d, (torch.randn(5, 9), torch.randn(4, 5, 3)), {}),
        "attention": (
            functional.scaled_dot_product_attention,
            (heads, heads + 1, heads - 1),
            {"attn_mask": torch.randn(2, 1, 5, 5)},
        ),
        "attention, one mask": (
            functional.scaled_dot_product_attention,
            (heads, heads, heads),
            {"attn_mask": torch.randn(5, 5)},
        ),
    }


@pytest.mark.parametrize("condition", [ShiftedMemory, Neighbours])
@pytest.mark.parametrize("name", operations())
def test_the_mathematics_stays(name: str, condition: Callable[[], Any]) -> None:
    function, tensors, options = operations()[name]
    plain = function(*tensors, **options)
    with condition():
        changed = function(*tensors, **options)
    assert changed.shape == plain.shape
    torch.testing.assert_close(changed, plain)


def test_neighbours_take_operands_by_name() -> None:
    heads = torch.randn(2, 3, 5, 4)
    plain = functional.scaled_dot_product_attention(query=heads, key=heads, value=heads)
    with Neighbours():
        changed = functional.scaled_dot_product_attention(query=heads, key=heads, value=heads)
        linear = functional.linear(input=heads, weight=torch.eye(4))
        mixed = functional.linear(heads, bias=torch.zeros(4), weight=torch.eye(4))
    torch.testing.assert_close(changed, plain)
    torch.testing.assert_close(linear, heads)
    torch.testing.assert_close(mixed, heads)


class _Seen(torch.overrides.TorchFunctionMode):
    """What reaches torch inside another mode."""

    def __init__(self) -> None:
        super().__init__()
        self.offsets: list[int] = []
        self.entries: list[int] = []

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is functional.linear:
            self.offsets += [value.storage_offset() for value in args]
            self.entries.append(args[0].shape[0])
        return function(*args, **(kwargs or {}))


def seen(condition: Callable[[], Any]) -> _Seen:
    with _Seen() as probe, condition():
        functional.linear(torch.randn(3, 8), torch.randn(6, 8))
    return probe


def test_operands_are_off_their_alignment_and_neighbours_are_there() -> None:
    assert seen(ShiftedMemory).offsets == [1, 1]
    assert seen(ShiftedMemory).entries == [3]
    assert seen(Neighbours).offsets == [0, 0]
    assert seen(Neighbours).entries == [6]


def test_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    with contextlib.suppress(ValueError), threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise ValueError
    assert torch.get_num_threads() == before


def test_an_attention_kernel_that_the_case_demands_is_not_changed() -> None:
    demanded = replace(CASE, overrides=(Override(field="attention", value="math"),))
    plain = {"two_threads", "shifted_memory", "batch_neighbours", "together"}
    assert set(conditions(CASE, "cpu")) == plain | {"attention_math", "attention_flash"}
    assert set(conditions(CASE, "cuda")) == plain | {"attention_math", "attention_flash", "attention_efficient"}
    assert set(conditions(demanded, "cpu")) == plain


def test_every_condition_can_be_entered_again_and_leaves_no_trace() -> None:
    heads = torch.randn(1, 2, 16, 8)
    plain = functional.scaled_dot_product_attention(heads, heads, heads)
    math = torch.backends.cuda.math_sdp_enabled(), torch.backends.cuda.flash_sdp_enabled()
    for name, condition in conditions(CASE, "cpu").items():
        for _ in range(2):
            with condition():
                inside = functional.scaled_dot_product_attention(heads, heads, heads)
            torch.testing.assert_close(inside, plain, msg=name)
        assert torch.equal(functional.scaled_dot_product_attention(heads, heads, heads), plain), name
    assert (torch.backends.cuda.math_sdp_enabled(), torch.backends.cuda.flash_sdp_enabled()) == math
