"""Engine against diffusers on a CUDA device: the same cases, the limits of fp32 parity."""

from __future__ import annotations

import pytest

from conformance import environment
from conformance.case import Case
from conformance.compare import compare, handshake
from conformance.generator import Generator, Probe, Sample
from conformance.matrix import all_cases
from conformance.verdicts import Verdict
from engine.generator import build
from reference_impl.diffusers_ltx2 import build as build_reference
from reference_impl.tiny.build import cached

pytestmark = pytest.mark.gpu
CASES = [
    case
    for case in all_cases()
    if case.variant in ("unguided", "all-guidance-odd") and case.layout.world == 1 and case.numerics == "diffusers"
]


@pytest.fixture(autouse=True)
def _as_in_a_run() -> None:
    environment.settle()


def _run(generator: Generator, case: Case) -> Sample:
    probe = Probe(depth="step")
    sample = generator.generate(case, probe)
    sample.trace, sample.tensors = probe.trace, probe.tensors
    return sample


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_engine_and_diffusers_agree_on_the_device(case: Case) -> None:
    folder = cached(case.model)
    candidate, reference = _run(build(folder, "cuda"), case), _run(build_reference(folder, "cuda"), case)
    assert handshake(candidate.resolved, reference.resolved) is None
    # fp32: rounding of four steps; bf16: semantics only, rounding differs between kernels by percents
    result = compare(candidate, reference, limits={"latents.rel_l2": 5e-6 if case.dtype == "fp32" else 6e-2})
    assert result.verdict in (Verdict.PASS_EXACT, Verdict.PASS), (result.reason, result.divergence)


def test_the_same_noise_is_drawn_for_every_device() -> None:
    case = CASES[0]
    folder = cached(case.model)
    digests = [_run(build(folder, device), case).resolved["noise"] for device in ("cpu", "cuda")]
    assert digests[0] == digests[1]
