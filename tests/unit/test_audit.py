"""The audit: flags that do nothing, and stored references that are unused, stale, expired, copies or made unlike."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gt_samples import CASE, LEDGER, PUT, sample

from conformance import checkpoint, cli
from conformance.acceptance import Acceptance
from conformance.audit import Stored, differing, stored, without_effect
from conformance.case import Case, Layout
from conformance.jsonio import write_json
from conformance.matrix import all_cases
from conformance.results import CaseResult, Results
from conformance.verdicts import Verdict
from ground_truth import Store
from reference_impl.tiny.build import cached

OUT = {"frames": "a" * 64, "latents/video": "b" * 64}
REAL = next(case for case in all_cases() if case.id == "ltx-2.3/one-stage-t2v/cfg@single+diffusers-fp32")


def _with(name: str, **fields: Any) -> Case:
    return replace(REAL, variant=name, **fields)


def _audited(*cases: tuple[Case, dict[str, str]]) -> list[str]:
    found = without_effect({case.id: (case.as_dict(), outputs) for case, outputs in cases})
    assert {each.kind for each in found} <= {"no-effect"}
    return [each.sentence for each in found]


def test_a_flag_that_changes_no_bit_is_named() -> None:
    cached_steps = _with("cached", request=replace(REAL.request, skip_v2a=True))
    (sentence,) = _audited((REAL, OUT), (cached_steps, OUT))
    assert REAL.id in sentence
    assert cached_steps.id in sentence
    assert "request.skip_v2a differ" in sentence
    assert _audited((REAL, OUT), (cached_steps, {**OUT, "latents/video": "c" * 64})) == []


def test_what_must_not_change_a_bit_is_no_finding() -> None:
    ranks = replace(REAL, layout=replace(Layout.single(), cfg=2))
    assert _audited((REAL, OUT), (ranks, OUT), (replace(REAL, kernels="on"), OUT), (_with("other"), OUT)) == []
    assert _audited((REAL, {}), (_with("b", dtype="bf16"), {})) == []  # nothing was put out


def test_of_many_equal_outputs_the_nearest_cases_are_named() -> None:
    one = _with("one", dtype="bf16")
    two = _with("two", dtype="bf16", request=replace(REAL.request, seed=1))
    sentences = _audited((REAL, OUT), (one, OUT), (two, OUT))
    assert [sentence.split("though ")[1] for sentence in sentences] == ["dtype differ", "request.seed differ"]


def test_fields_are_named_to_the_last_part() -> None:
    guided = replace(REAL.request.video_guidance, cfg=9.0)
    other = replace(REAL, request=replace(REAL.request, video_guidance=guided))
    assert differing(REAL.as_dict(), other.as_dict()) == ["request.video_guidance.cfg"]


def _entry(name: str, **fields: Any) -> Stored:
    usual: dict[str, Any] = {
        "case": REAL.as_dict(),
        "outputs": name,
        "environment": {"torch": "2.13.0"},
        "checkpoint": {"vae": "a"},
        "unused": "",
        "stale": (),
        "expired": "",
    }
    return Stored(name=name, **{**usual, **fields})


@pytest.mark.parametrize(
    ("fields", "kind", "words"),
    [
        ({}, None, ""),
        ({"unused": "the matrix has none"}, "unused", "no case reads it: the matrix has none"),
        ({"stale": ("a was 1, is 2", "b")}, "stale", "is stale: a was 1, is 2; b"),
        ({"expired": "accepted by ada"}, "expired", "accepted by ada"),
        ({"environment": {"torch": "2.12.0"}}, "unlike", "environment torch is 2.13.0 in 1 (a), 2.12.0 in 1 (b)"),
        ({"checkpoint": {"vae": "b"}}, "unlike", "checkpoint vae is a in 1 (a), b in 1 (b)"),
        ({"checkpoint": {"lora": "b"}}, None, ""),
        ({"checkpoint": {"vae": "b"}, "case": {**REAL.as_dict(), "model": "ltx-2"}}, None, ""),
        ({"outputs": "a", "case": {**REAL.as_dict(), "dtype": "bf16"}}, "duplicate", "though dtype differ"),
        ({"outputs": "a"}, None, ""),
    ],
)
def test_a_store_is_audited(fields: dict[str, Any], kind: str | None, words: str) -> None:
    found = stored([_entry("a"), _entry("b", **fields)])
    assert [each.kind for each in found] == ([] if kind is None else [kind])
    assert all(words in each.sentence for each in found)


def test_the_command_reads_runs_and_stores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path / "store")
    digests = checkpoint.digests(cached(REAL.model))
    environment = json.loads(json.dumps(LEDGER))
    put = {**PUT, "checkpoint": digests, "ledger": environment}
    assert cli.main(["audit", "--store", str(tmp_path / "none")]) == 2
    store.put(REAL, sample(), **put)
    assert cli.main(["audit", "--store", str(store.root)]) == 0
    ended = Acceptance(reason="r", owner="o", date="2020-01-01", expires="2020-01-01")
    store.put(REAL, sample(1), **{**put, "kind": "self"}, accepted=ended)
    store.put(REAL, sample(2), **{**put, "kind": "official"})
    store.put(replace(CASE, variant="gone"), sample(3), **put)
    store.put(replace(REAL, dtype="bf16", request=replace(REAL.request, seed=9)), sample(4), **put)
    results = [
        CaseResult(id=case.id, gate="reference", verdict=Verdict.PASS, reason="", case=case.as_dict(), outputs=OUT)
        for case in (REAL, _with("b", dtype="bf16"))
    ]
    write_json(tmp_path / "results.json", Results(run={}, cases=tuple(results)).as_dict())
    capsys.readouterr()
    assert cli.main(["audit", str(tmp_path), "--store", str(store.root), "--json", "-"]) == 1
    data = json.loads(capsys.readouterr().out)
    assert (data["cases"], data["references"]) == (2, 5)
    kinds = [each["kind"] for each in data["findings"]]
    assert sorted(kinds) == ["expired", "no-effect", "stale", "unused", "unused"]
    (stale,) = [each["sentence"] for each in data["findings"] if each["kind"] == "stale"]
    assert "case request.seed was 9" in stale


def test_the_shipped_store_is_clean() -> None:
    assert cli.main(["audit"]) == 0
