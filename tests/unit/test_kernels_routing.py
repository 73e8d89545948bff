"""Routing of the rotary kernel: one reason for each fallback, and the pick in the ledger."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
import torch
from engine_reference import CPU, tiny_case, tiny_request
from interpreted import states, tables

from conformance.generator import Probe
from engine import picks
from engine.generator import build
from engine.layers.rope import Rotary
from kernels import routing
from kernels.routing import Pick, choose_rotary
from reference_impl.tiny.build import cached

Operands = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def operands(dtype: torch.dtype = torch.bfloat16) -> Operands:
    """x [2,5,3*8], cos and sin [1,3,5,4]."""
    return states(2, 5, 24, dtype), *tables(1, 5, 3, 4)


def choose(given: Operands, rounding: str = "fp32-once", *, enabled: bool = True, interpreted: bool = True) -> str:
    return str(choose_rotary(*given, rounding, enabled=enabled, interpreted=interpreted))


@pytest.mark.parametrize("rounding", ["fp32-once", "product-rounded"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_what_fits_is_routed_to_the_kernel(dtype: torch.dtype, rounding: str) -> None:
    x, cos, sin = operands(dtype)
    assert choose((x, cos, sin), rounding) == "triton"
    assert choose((x[..., 8:].contiguous(), cos[:, 1:], sin[:, 1:]), rounding) == "triton"
    assert choose((x, cos.expand(2, -1, -1, -1), sin.expand(2, -1, -1, -1)), rounding) == "triton"


def test_the_switch_comes_first() -> None:
    assert choose(operands(), enabled=False) == "eager (kernels are off)"


def test_without_a_cuda_device_there_is_only_the_interpreter() -> None:
    assert choose(operands(), interpreted=False) == "eager (no CUDA device)"
    meta = tuple(tensor.to("meta") for tensor in operands())
    assert choose(meta, interpreted=False) == "eager (no kernel on device meta)"


def test_triton_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing, "find_spec", lambda name: None)
    assert choose(operands()) == "eager (triton is not installed)"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda x, c, s: (x.half(), c, s), "x is torch.float16, not bfloat16 or float32"),
        (lambda x, c, s: (x.double(), c, s), "x is torch.float64, not bfloat16 or float32"),
        (lambda x, c, s: (x[0], c, s), r"shapes (5, 24), (1, 3, 5, 4) and (1, 3, 5, 4) are not [B,T,D] and twice"),
        (lambda x, c, s: (x, c, s[:, :2]), r"shapes (2, 5, 24), (1, 3, 5, 4) and (1, 2, 5, 4) are not"),
        (lambda x, c, s: (x[..., :16].contiguous(), c, s), r"tables (1, 3, 5, 4) do not belong to x (2, 5, 16)"),
        (lambda x, c, s: (x[:, :4].contiguous(), c, s), r"tables (1, 3, 5, 4) do not belong to x (2, 4, 24)"),
        (lambda x, c, s: (x, *(t.expand(3, -1, -1, -1) for t in (c, s))), r"tables (3, 3, 5, 4) do not belong"),
        (lambda x, c, s: (torch.cat((x, x), -1)[..., :24], c, s), "x is not contiguous"),
        (lambda x, c, s: (x[:, ::2], c[:, :, ::2], s[:, :, ::2]), "x is not contiguous"),
        (lambda x, c, s: (x, c.bfloat16(), s), "cos is torch.bfloat16 on cpu, not float32 on cpu"),
        (lambda x, c, s: (x, c, s.double()), "sin is torch.float64 on cpu, not float32 on cpu"),
        (lambda x, c, s: (x, c, s.to("meta")), "sin is torch.float32 on meta, not float32 on cpu"),
        (lambda x, c, s: (x, c, s.transpose(2, 3).contiguous().transpose(2, 3)), "rows of sin are not contiguous"),
        (lambda x, c, s: (x.requires_grad_(), c, s), "the kernel has no backward pass"),
    ],
)
def test_every_fallback_has_its_reason(change: Callable[..., Operands], reason: str) -> None:
    pick = choose_rotary(*change(*operands()), "fp32-once", enabled=True, interpreted=True)
    assert pick.name == "eager"
    assert pick.reason.startswith(reason)


def test_an_unknown_order_and_too_many_rows_are_fallbacks() -> None:
    assert choose(operands(), "twice") == "eager (no rounding order 'twice')"
    many = torch.empty(1, dtype=torch.bfloat16).expand(1, 2**30, 8)
    table = torch.empty(1).expand(1, 4, 2**30, 1)
    assert choose((many, table, table)) == f"eager ({2**32} rows do not fit 32 bits)"


def test_no_grad_lifts_the_last_condition() -> None:
    x, cos, sin = operands()
    with torch.no_grad():
        assert choose((x.requires_grad_(), cos, sin)) == "triton"


def test_a_fallback_rotates_and_imports_no_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kernels.split_rotary", None)  # an import of it raises
    x, cos, sin = operands()
    with picks.scope(kernels=True) as picked:
        rotated = Rotary(cos, sin, "fp32-once").apply(x)
    assert rotated.shape == (2, 5, 3, 8)
    assert picked.ledger() == {"rotary": "eager (no CUDA device)"}


def test_scopes_nest_and_outside_nothing_is_kept() -> None:
    with picks.scope(kernels=True) as outer:
        with picks.scope(kernels=False) as inner:
            assert not picks.kernels_enabled()
            picks.record("rotary", str(Pick("eager", "kernels are off")))
        assert picks.kernels_enabled()
        picks.record("rotary", "triton")
        picks.record("rotary", "eager (x is not contiguous)")
        picks.record("rotary", "triton")
    picks.record("rotary", "lost")
    assert not picks.kernels_enabled()
    assert inner.ledger() == {"rotary": "eager (kernels are off)"}
    assert outer.ledger() == {"rotary": "triton; eager (x is not contiguous)"}


@pytest.mark.parametrize(("kernels", "reason"), [("on", "no CUDA device"), ("off", "kernels are off")])
def test_the_ledger_of_a_case_has_the_pick(kernels: str, reason: str) -> None:
    case = tiny_case("ltx-2.3", "bf16", tiny_request(steps=1, sigmas=(1.0,)), kernels=kernels)
    sample = build(cached("ltx-2.3"), str(CPU)).generate(case, Probe(depth="step"))
    assert sample.ledger["kernel"]["rotary"] == f"eager ({reason})"
