"""What ships: stored references are whole, current and usable; prompts fit; every case has limits."""

from __future__ import annotations

import pytest
import torch

import thresholds
from conformance import checkpoint, environment
from conformance.compare import compare
from conformance.errors import ReferenceStale
from conformance.generator import Probe
from conformance.matrix import all_cases
from conformance.verdicts import Verdict
from engine.generator import build
from ground_truth import Store
from reference_impl.tiny.build import cached

CASES = {case.id: case for case in all_cases()}
STORED = Store().entries()


def test_the_shipped_store_is_whole() -> None:
    assert len(STORED) >= 2
    assert Store().verify() == []


@pytest.mark.parametrize("manifest", STORED, ids=lambda manifest: manifest.case_id)
def test_a_shipped_reference_belongs_to_a_case_and_judges_it(manifest) -> None:
    case = CASES[manifest.case_id]
    folder = cached(case.model)
    wanted = {"kind": manifest.kind, "checkpoint": checkpoint.digests(folder), "ledger": environment.ledger("cpu")}
    if torch.__version__.split("+")[0] != "2.13.0":  # what the project pins and the references were made with
        with pytest.raises(ReferenceStale, match="torch"):
            Store().get(case, **wanted)
        return
    reference = Store().get(case, **wanted)
    entry = thresholds.load(device="cpu").for_case(case.id)
    assert entry is not None
    result = compare(build(folder, "cpu").generate(case, Probe(depth="step")), reference, limits=entry.limits)
    assert result.verdict in (Verdict.PASS_EXACT, Verdict.PASS), result.reason


def test_no_prompt_is_cut_short() -> None:
    for case in CASES.values():
        longest = max(map(len, (*case.request.prompts, *case.request.negative_prompts)))
        assert longest + 1 <= case.request.text_tokens, case.id  # one token a character, and <bos>
