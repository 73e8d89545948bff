"""JUnit XML: nothing that did not pass looks like a pass, and any text survives."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from report_fixture import FAIL_ID, hostile_case, make_results

from conformance.results import CaseResult, Results
from conformance.verdicts import Verdict
from reports.junit import junit_xml


def _suite(*cases: CaseResult) -> ET.Element:
    suite = ET.fromstring(junit_xml(Results(run={}, cases=cases))).find("testsuite")
    assert suite is not None
    return suite


@pytest.mark.parametrize("verdict", list(Verdict))
def test_each_verdict_has_its_outcome(verdict: Verdict) -> None:
    suite = _suite(CaseResult(id="a/b/c", gate="self", verdict=verdict, reason="because"))
    outcome = [child.tag for child in suite[0] if child.tag != "properties"]
    expected = {
        Verdict.PASS: [],
        Verdict.PASS_EXACT: [],
        Verdict.FAIL: ["failure"],
        Verdict.WAIVED: ["skipped"],
    }.get(verdict, ["error"])
    assert outcome == expected
    totals = {name: int(suite.get(name, "")) for name in ("tests", "failures", "errors", "skipped")}
    assert totals == {
        "tests": 1,
        "failures": outcome.count("failure"),
        "errors": outcome.count("error"),
        "skipped": outcome.count("skipped"),
    }
    if outcome:
        assert "because" in suite[0].find(outcome[0]).get("message")  # type: ignore[union-attr,operator]


def test_a_case_is_found_by_model_and_gate_with_its_time(tmp_path: Path) -> None:
    results = make_results(tmp_path)
    item = next(item for item in _suite(*results.cases) if FAIL_ID in item.get("name", ""))
    assert item.get("classname") == "conformance.ltx-2_3.one-stage-t2v"
    assert item.get("name") == f"{FAIL_ID} [reference]"
    assert item.get("time") == "3.914"
    text = item.findtext("failure") or ""
    assert "SSIM: worst 0.912, limit ≥ 0.95: outside" in text
    assert "CLIP cosine: not measured. no CLIP weights: give --clip PATH" in text
    assert "first difference: step.000/cond/block.01/ff/out" in text


def test_one_test_case_for_each_case_and_gate(tmp_path: Path) -> None:
    results = make_results(tmp_path)
    again = tuple(replace(case, gate="parallel") for case in results.cases)
    names = [item.get("name") for item in _suite(*results.cases, *again)]
    assert len(names) == len(set(names)) == 22


@settings(max_examples=100)
@given(st.text(st.characters()))
@example("\ufffe\uffff\x0b\x00\ud800\u202e")
def test_any_text_gives_well_formed_xml(text: str) -> None:
    case = replace(hostile_case(), id=f"x{text}", reason=text, axes={"model": text, text: "y"}, command=text)
    junit_xml(Results(run={"started": text}, cases=(case,))).encode()
    assert _suite(case)[0].get("name", "").startswith("x")
