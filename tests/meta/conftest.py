"""Both sides of a case, generated once a session: mutants are judged against the same reference."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
from sides import CASES, run

from conformance.generator import Generator, Sample
from conformance.job import REFERENCES, reference_of
from conformance.worker import factory
from engine.generator import build
from reference_impl.tiny.build import cached


@pytest.fixture(scope="session")
def plain() -> Callable[[str], Generator]:
    """The unbroken engine of a model, loaded once."""
    return cache(lambda model: build(cached(model), "cpu"))


@pytest.fixture(scope="session")
def reference() -> Callable[[str], Sample]:
    """The reference sample of a case."""
    sides = cache(lambda name, model: factory(REFERENCES[name])(cached(model), "cpu"))
    return cache(lambda case_id: run(sides(reference_of(CASES[case_id]), CASES[case_id].model), CASES[case_id]))
