"""The float64 loop against whole runs, and each finding from an engine that earns it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch

from conformance.case import Case
from conformance.defects import engine as defects
from conformance.defects import nuisance
from conformance.defects.variants import Variant, with_numerics
from conformance.generator import Probe, Sample
from conformance.matrix import all_cases
from conformance.oracle_truth import ask
from engine.generator import build
from reference_impl.tiny.build import cached

CASES = {case.id: case for case in all_cases()}
BF16 = CASES["ltx-2/one-stage-t2v/unguided@single+diffusers-bf16"]
GUIDED = CASES["ltx-2.3/one-stage-t2v/all-guidance@single+diffusers-fp32"]
FLOOR = 2e-6  # float32, as of one forward; guidance and steps enlarge and steps shrink it


@cache
def _engine(model: str) -> Any:
    return build(cached(model), "cpu")


@cache
def _run(case: Case, variant: Variant | None = None) -> Sample:
    plain = _engine(case.model)
    probe = Probe(depth="step")
    sample: Sample = (variant.around(plain) if variant else plain).generate(case, probe)
    sample.trace, sample.tensors = probe.trace, probe.tensors
    return sample


def _asked(candidate: Sample, reference: Sample, case: Case = BF16) -> dict[str, Any]:
    return ask(case, cached(case.model), candidate, reference)


def test_the_loop_is_the_model_with_all_of_guidance() -> None:
    """In float32 the engine is at the floor, in the first forward and at the end of the guided loop."""
    plain = _run(GUIDED)
    moved = {stream: x * (1 + 1e-3) for stream, x in plain.latents.items()}
    taps = {name: x * (1 + 1e-3) if "velocity" in name else x for name, x in plain.tensors.items()}
    found = _asked(replace(plain, latents=moved, tensors=taps), plain, GUIDED)
    assert found["finding"] == "REGRESSION"
    assert found["candidate_error"] == pytest.approx(1e-3, rel=1e-2)
    assert found["reference_error"] < FLOOR
    assert found["bias"] == pytest.approx(1.0, abs=1e-3)


EARNED: dict[str, tuple[Callable[[], Variant], str]] = {
    "another memory layout": (lambda: nuisance.token_memory, "BENIGN_REROUND"),
    "guidance rounded to bf16": (lambda: with_numerics("x0", x0_dtype="model"), "BENIGN_REROUND"),
    "velocity rounded to bf16": (lambda: with_numerics("velocity", velocity_dtype="model"), "NOISE"),
    "no video-to-audio attention": (lambda: defects.v2a_skipped, "REGRESSION"),
    "start positions": (lambda: defects.start_positions, "REGRESSION"),
    "a rotation in another order, in the connectors too": (
        lambda: with_numerics("rope", rope_rounding="product-rounded"),
        "",
    ),
}


@pytest.mark.parametrize("name", EARNED)
def test_each_finding_is_earned_by_an_engine(name: str) -> None:
    make, expected = EARNED[name]
    found = _asked(_run(BF16, make()), _run(BF16))
    assert found.get("finding", "") == expected, found["sentence"]
    assert expected or found["sentence"].startswith("no finding: connector/pos/video differs already")


def test_with_the_sides_swapped_the_reference_is_worse() -> None:
    found = _asked(_run(BF16), _run(BF16, defects.v2a_skipped))
    assert found["finding"] == "REFERENCE_WORSE"
    assert found["rms_ratio"] < 0.2


def test_without_a_truth_the_reason_is_said() -> None:
    plain = _run(BF16)
    assert "decoders differ" in _asked(plain, plain)["sentence"]
    for case, words in (
        (CASES["ltx-2/one-stage-ti2v/unguided@single+diffusers-bf16"], "a given frame"),
        (CASES["ltx-2.3/two-stage-t2v/cfg@single+diffusers-bf16"], "two stages"),
        (replace(BF16, request=replace(BF16.request, skip_v2a=True)), "no video-to-audio attention"),
    ):
        assert words in _asked(plain, plain, case)["sentence"]


def test_a_loop_that_is_worse_is_found_from_other_contexts_too() -> None:
    """An fp32 frequency grid moves the connectors as well."""
    fp32 = replace(BF16, dtype="fp32")
    plain, other = _run(fp32), _run(fp32, defects.fp32_grid)
    assert _asked(other, plain, fp32)["finding"] == "REGRESSION"
    assert _asked(plain, other, fp32)["finding"] == "REFERENCE_WORSE"
    assert "kept no inputs" in _asked(other, replace(plain, tensors={}), fp32)["sentence"]


def test_a_stored_reference_is_asked_about_its_latents_alone() -> None:
    stored = replace(_run(BF16), tensors={})
    found = _asked(_run(BF16, defects.v2a_skipped), stored)
    assert found["finding"] == "REGRESSION"
    assert found["output"].startswith("final/")


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
