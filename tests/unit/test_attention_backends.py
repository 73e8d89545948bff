"""Attention backends: a named one runs or is refused, torch's own choice is recorded, fa3 fits every build."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch
from engine_reference import CPU, DIFFUSERS, dit_inputs, engine_dit, tiny_case, tiny_request
from torch.nn import functional
from two_stage_cases import wanted

from conformance.case import Override
from conformance.defects.variants import with_numerics
from conformance.errors import UnsupportedCase
from conformance.generator import Probe
from engine import backends, picks
from engine.backends import attend, refusal
from engine.generator import build
from engine.models.ltx2.transformer import LTX2Transformer
from engine.numerics import Numerics, choices
from reference_impl.tiny.build import cached

BF16 = torch.bfloat16


def operands(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """q [2,45,4,16], k and v [2,37,4,16]."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, tokens, 4, 16, generator=generator).to(dtype) for tokens in (45, 37, 37))
    return q, k, v


def bias() -> torch.Tensor:
    return torch.randn(2, 37, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("backend", "ran"), [("sdpa", "flash (torch's choice)"), ("math", "math"), ("flash", "flash")])
def test_a_backend_computes_attention_and_is_recorded(backend: str, ran: str, masked: bool) -> None:
    q, k, v = operands()
    mask = bias() if masked else None
    with picks.scope(kernels=False) as picked:
        out = attend(q, k, v, mask, backend)
    scores = torch.einsum("bthd,bshd->bhts", q.double(), k.double()) / 4 + (0 if mask is None else mask[:, None, None])
    exact = torch.einsum("bhts,bshd->bthd", scores.softmax(-1), v.double())
    assert out.shape == q.shape
    assert float((out - exact).norm() / exact.norm()) < 5e-7
    assert picked.ledger() == {"attention": ran}


def test_math_is_another_kernel_than_flash() -> None:
    math, flash = (attend(*operands(), None, backend) for backend in ("math", "flash"))
    assert not torch.equal(math, flash)
    assert torch.equal(flash, attend(*operands(), None, "sdpa"))


@pytest.mark.parametrize(
    ("backend", "device", "dtype", "masked", "reason"),
    [
        ("efficient", "cpu", BF16, False, "needs a CUDA device, not cpu"),
        ("cudnn", "cpu", BF16, False, "needs a CUDA device, not cpu"),
        ("fa3", "cpu", BF16, False, "needs a CUDA device, not cpu"),
        ("flash", "cuda", BF16, True, "takes no mask"),
        ("fa3", "cuda", BF16, True, "takes no mask"),
        ("flash", "cuda", torch.float32, False, "takes bfloat16 and float16, not torch.float32"),
        ("cudnn", "cuda", torch.float32, False, "takes bfloat16 and float16, not torch.float32"),
        ("fa3", "cuda", torch.float64, False, "takes bfloat16 and float16, not torch.float64"),
    ],
)
def test_refusals(backend: str, device: str, dtype: torch.dtype, masked: bool, reason: str) -> None:
    assert refusal(backend, device=device, dtype=dtype, masked=masked) == reason


@pytest.mark.parametrize(
    ("backend", "device", "dtype", "masked"),
    [
        *((backend, "cuda", BF16, False) for backend in choices()["attention"]),
        *((backend, "cuda", torch.float32, True) for backend in ("sdpa", "math", "efficient")),
        *((backend, "cpu", torch.float32, True) for backend in ("sdpa", "math", "flash")),
    ],
)
def test_what_is_not_refused(backend: str, device: str, dtype: torch.dtype, masked: bool) -> None:
    assert refusal(backend, device=device, dtype=dtype, masked=masked) is None


@pytest.mark.parametrize("backend", ["efficient", "cudnn", "fa3"])
def test_a_refused_backend_is_an_unsupported_case(backend: str) -> None:
    with pytest.raises(UnsupportedCase, match=f"attention backend '{backend}': needs a CUDA device, not cpu"):
        attend(*operands(), None, backend)


def test_torch_has_the_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "refusal", lambda *_, **__: None)
    with pytest.raises(UnsupportedCase, match=r"'efficient': torch does not run it on cpu for torch.float32, q \(2, 4"):
        attend(*operands(), bias(), "efficient")


def _dense(returns_lse: bool) -> dict[str, Callable[..., Any]]:
    def flash_attn_func(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, softmax_scale: float | None = None, causal: bool = False
    ) -> Any:
        assert not causal
        parts = (x.transpose(1, 2) for x in (q, k, v))
        out = functional.scaled_dot_product_attention(*parts, scale=softmax_scale).transpose(1, 2)
        return (out, out[..., 0]) if returns_lse else out

    return {"flash_attn_func": flash_attn_func}


def _varlen(with_out: bool) -> dict[str, Callable[..., Any]]:
    dense = _dense(returns_lse=False)["flash_attn_func"]

    def packed(
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        *,
        cu_seqlens_q: torch.Tensor,
        cu_seqlens_k: torch.Tensor,
        max_seqlen_q: int,
        max_seqlen_k: int,
        softmax_scale: float,
        causal: bool,
    ) -> torch.Tensor:
        assert cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32
        assert (max_seqlen_q, max_seqlen_k) == (45, 37)
        rows = zip(*(starts.tolist() for starts in (cu_seqlens_q[:-1], cu_seqlens_q[1:])), strict=True)
        columns = zip(*(starts.tolist() for starts in (cu_seqlens_k[:-1], cu_seqlens_k[1:])), strict=True)
        return torch.cat(
            [
                dense(q[None, a:b], k[None, c:d], v[None, c:d], softmax_scale, causal)[0]
                for (a, b), (c, d) in zip(rows, columns, strict=True)
            ]
        )

    def taking_out(*args: torch.Tensor, out: torch.Tensor | None = None, **options: Any) -> torch.Tensor:
        assert out is None
        return packed(*args, **options)

    return {"flash_attn_varlen_func": taking_out if with_out else packed}


@pytest.mark.parametrize(
    "entries",
    [_dense(True), _dense(False), _varlen(True), _varlen(False)],
    ids=["dense-with-lse", "dense", "varlen-with-out", "varlen-without-out"],
)
def test_fa3_fits_the_builds(entries: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("flash_attn_interface")
    module.__dict__.update(entries)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(backends, "refusal", lambda *_, **__: None)
    with picks.scope(kernels=False) as picked:
        out = attend(*operands(BF16), None, "fa3")
    assert torch.equal(out, attend(*operands(BF16), None, "flash"))
    assert picked.ledger() == {"attention": "fa3"}


def test_fa3_is_imported_by_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flash_attn_interface", None)  # an import of it raises
    attend(*operands(), None, "sdpa")
    monkeypatch.setattr(backends, "refusal", lambda *_, **__: None)
    with pytest.raises(UnsupportedCase, match="'fa3': flash_attn_interface cannot be imported"):
        attend(*operands(BF16), None, "fa3")


def test_the_field_reaches_every_attention_of_the_dit(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    real = attend

    def spy(*args: Any) -> torch.Tensor:
        seen.append(args[-1])
        return real(*args)

    monkeypatch.setattr("engine.layers.attention.attend", spy)
    dit = engine_dit("ltx-2.3", torch.float32)
    sdpa = dit(dit_inputs("ltx-2.3", torch.float32), DIFFUSERS)[0]
    math = dit(dit_inputs("ltx-2.3", torch.float32), replace(DIFFUSERS, attention="math"))[0]
    assert seen == ["sdpa"] * (len(seen) // 2) + ["math"] * (len(seen) // 2)
    assert len(seen) == 2 * 6 * dit.config.num_layers
    assert not torch.equal(sdpa, math)
    assert float((sdpa - math).norm() / sdpa.norm()) < 2e-6


def test_both_stages_run_the_backend_of_the_case(monkeypatch: pytest.MonkeyPatch) -> None:
    case = replace(wanted(), overrides=(Override(field="attention", value="math"),))
    models: dict[int, set[str]] = {}
    real = LTX2Transformer.forward

    def spy(self: LTX2Transformer, inputs: Any, numerics: Numerics) -> Any:
        models.setdefault(id(self), set()).add(numerics.attention)
        return real(self, inputs, numerics)

    monkeypatch.setattr(LTX2Transformer, "forward", spy)
    ledger = build(cached("ltx-2.3"), str(CPU)).generate(case, Probe(depth="step")).ledger
    assert list(models.values()) == [{"math"}, {"math"}]  # a transformer of its own for each strength of the LoRA
    assert ledger["kernel"]["attention"] == "math"


def test_the_ledger_of_a_case_says_what_ran() -> None:
    case = tiny_case("ltx-2.3", "fp32", tiny_request(steps=1, sigmas=(1.0,)))
    engine = build(cached("ltx-2.3"), str(CPU))
    assert engine.generate(case, Probe(depth="step")).ledger["kernel"]["attention"] == "flash (torch's choice)"
    changed = with_numerics("math", attention="math").around(engine)
    assert changed.generate(case, Probe(depth="step")).ledger["kernel"]["attention"] == "math"
    with pytest.raises(UnsupportedCase, match="attention backend 'cudnn': needs a CUDA device"):
        with_numerics("cudnn", attention="cudnn").around(engine).generate(case, Probe(depth="step"))
