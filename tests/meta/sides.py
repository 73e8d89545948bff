"""What the mutation tests share."""

from __future__ import annotations

import pytest

from conformance.case import Case
from conformance.errors import ReferenceMissing
from conformance.generator import Generator, Probe, Sample
from conformance.matrix import all_cases
from reference_impl.official import packages

try:
    _ABSENT = "" if packages.install() == "1.0.0" else "the official packages are of another version"
except ReferenceMissing as error:
    _ABSENT = str(error)
OFFICIAL = pytest.mark.skipif(bool(_ABSENT), reason=_ABSENT)
CASES = {case.id: case for case in all_cases()}


def run(generator: Generator, case: Case) -> Sample:
    """One sample with step-level trace."""
    probe = Probe(depth="step", keep=False)
    sample = generator.generate(case, probe)
    sample.trace = probe.trace
    return sample
