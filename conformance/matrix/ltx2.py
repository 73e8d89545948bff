"""The LTX-2 and LTX-2.3 cases, on the checkpoints the project builds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from conformance.case import Case, Layout
from conformance.matrix import ltx2_parallel
from conformance.matrix.ltx2_requests import DIFFUSERS, OFFICIAL, OFFICIAL_NEW, Row, rows

MODELS = ("ltx-2", "ltx-2.3")
# which suite a reference's cases are in: what each needs to be there is different
_SUITES = {DIFFUSERS: "default", OFFICIAL: "official", OFFICIAL_NEW: "official-1.2.0"}
# (variant, dtype) of one-stage text-to-video that LTX-2.3 also runs with fused kernels
_WITH_KERNELS = (("all-guidance", "bf16"), ("unguided", "fp32"))
# variant of one-stage text-to-video that LTX-2.3 also runs with quantized weights, which diffusers cannot
_QUANTIZED = "all-guidance"


def cases() -> Iterator[Case]:
    """By reference, then by model; then those on several ranks."""
    for numerics in _SUITES:
        plain = [case for case in _plain() if case.numerics == numerics]
        yield from plain
        for case in plain:
            if case.model != "ltx-2.3" or case.pipeline != "one-stage-t2v":
                continue
            if numerics == DIFFUSERS and (case.variant, case.dtype) in _WITH_KERNELS:
                yield replace(case, kernels="on")
            if numerics == OFFICIAL and case.variant == _QUANTIZED:
                yield replace(case, quantization="fp8-cast")
    yield from ltx2_parallel.cases(list(_plain()))


def _plain() -> Iterator[Case]:
    for model in MODELS:
        for row in rows():
            for numerics in row.numerics:
                for dtype in ("fp32", "bf16"):
                    yield _case(model, row, numerics, dtype)


def _case(model: str, row: Row, numerics: str, dtype: str) -> Case:
    return Case(
        model=model,
        pipeline=row.pipeline,
        variant=row.variant,
        layout=Layout.single(),
        numerics=numerics,
        overrides=(),
        dtype=dtype,
        quantization="checkpoint",
        kernels="off",
        checkpoint="tiny",
        request=row.request,
        suites=(_SUITES[numerics],),
    )
