"""What the mutation tests share."""

from __future__ import annotations

from official_packages import only

from conformance.case import Case
from conformance.generator import Generator, Probe, Sample
from conformance.matrix import all_cases

OFFICIAL = only("1.0.0")
CASES = {case.id: case for case in all_cases()}


def run(generator: Generator, case: Case) -> Sample:
    """One sample with step-level trace."""
    probe = Probe(depth="step", keep=False)
    sample = generator.generate(case, probe)
    sample.trace = probe.trace
    return sample
