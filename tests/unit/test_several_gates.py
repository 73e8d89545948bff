"""Several gates of a case in one run: the engine runs once, every gate has its own result, folder, limits and fate."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conformance import runner
from conformance.case import Case
from conformance.errors import InputError
from conformance.job import LIVE, SINGLE, references_of
from conformance.matrix import all_cases
from conformance.results import CaseResult, Results
from conformance.runner import Options, collect, make_jobs, open_out, run_jobs
from conformance.verdicts import Verdict
from reference_impl.tiny.build import cached
from reports.render import write_report

CASES = [case for case in all_cases() if case.id.startswith("ltx-2.3/one-stage-t2v/unguided@single+diffusers-")]
TP2 = next(case for case in all_cases() if case.layout.name == "tp2")


@pytest.fixture(autouse=True)
def counted(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the counting engine leaves a file a run, beside the checkpoint."""
    folder = tmp_path_factory.mktemp("counted")
    (folder / "checkpoint").symlink_to(cached("ltx-2.3"))
    (folder / "counts").mkdir()
    given = (str(folder / "checkpoint"), "0")
    monkeypatch.setattr(runner, "prepare_checkpoints", lambda models, options, on_place: dict.fromkeys(models, given))
    return folder / "counts"


def _run(cases: list[Case], out: Path, *references: str, engine: str = "counting", **more: Any) -> Results:
    options = Options(
        out=out, engine=f"fakes:{engine}", reference=references[0], further=references[1:], timeout=60.0, **more
    )
    with open_out(out, resume=options.resume):
        got = list(run_jobs(make_jobs(cases, options), options))
        whole = collect(cases, got, options, time.time(), "test")
        write_report(whole, out)
    return whole


def _by_gate(whole: Results) -> dict[str, CaseResult]:
    return {case.gate: case for case in whole.cases}


def test_the_engine_runs_once_for_all_gates_and_each_is_judged_apart(tmp_path: Path, counted: Path) -> None:
    (tmp_path / "store").mkdir()
    whole = _run(CASES[:1], tmp_path / "out", "fakes:good", "self", store=tmp_path / "store")
    assert len(list(counted.iterdir())) == 1
    assert [case.gate for case in whole.cases] == ["reference", "self"]
    found = _by_gate(whole)
    assert found["reference"].verdict == Verdict.PASS_EXACT
    assert found["self"].verdict == Verdict.NO_REFERENCE
    assert found["reference"].files["log"] == found["self"].files["log"]
    assert (tmp_path / "out" / found["self"].files["log"]).is_file()
    assert "--reference self" in found["self"].command
    assert "--reference fakes:good" in found["reference"].command


def test_a_reference_that_dies_leaves_the_other_gates_their_verdicts(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    for reference in ("fakes:killing", "fakes:raising"):
        found = _by_gate(_run(CASES[:1], tmp_path / reference, reference, "self", store=tmp_path / "store"))
        assert found["self"].verdict == Verdict.NO_REFERENCE
        assert found["reference"].verdict == Verdict.INFRA_ERROR


def test_an_engine_that_dies_fails_every_gate(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    for engine, verdict in (("killing", Verdict.INFRA_ERROR), ("unsupporting", Verdict.UNSUPPORTED)):
        whole = _run(CASES[:1], tmp_path / engine, "fakes:good", "self", engine=engine, store=tmp_path / "store")
        assert {case.gate: case.verdict for case in whole.cases} == {"self": verdict, "reference": verdict}


def test_a_resumed_run_keeps_a_case_only_with_all_of_its_gates(tmp_path: Path, counted: Path) -> None:
    (tmp_path / "store").mkdir()
    references = ("fakes:good", "self")
    whole = _run(CASES, tmp_path / "out", *references, store=tmp_path / "store")
    again = _run(CASES, tmp_path / "out", *references, store=tmp_path / "store", resume=True)
    assert [case.as_dict() for case in again.cases] == [case.as_dict() for case in whole.cases]
    assert len(list(counted.iterdir())) == len(CASES)
    (job, *_) = make_jobs(CASES[:1], Options(out=tmp_path / "out", further=("self",)))
    (tmp_path / "out" / job.gates[1].folder / "result.json").unlink()
    _run(CASES, tmp_path / "out", *references, store=tmp_path / "store", resume=True)
    assert len(list(counted.iterdir())) == len(CASES) + 1


def test_what_references_mean_for_a_case() -> None:
    one = CASES[0]
    assert references_of(one, (LIVE,)) == (LIVE,)
    assert references_of(one, (LIVE, "self", SINGLE)) == (LIVE, "self")
    assert references_of(one, (SINGLE,)) == (SINGLE,)  # asked for alone it is answered: UNSUPPORTED
    assert references_of(TP2, (LIVE, SINGLE)) == (SINGLE,)
    assert references_of(TP2, ("diffusers", SINGLE, "self")) == ("diffusers", SINGLE, "self")
    with pytest.raises(InputError, match="gate 'reference' is against 'live' already"):
        references_of(one, (LIVE, "stored"))


def test_a_gate_of_its_own_is_the_same_job_as_one_among_others(tmp_path: Path) -> None:
    """So that what one run finished another can resume."""
    (job,) = make_jobs(CASES[:1], Options(out=tmp_path, further=("self",)))
    (alone,) = make_jobs(CASES[:1], Options(out=tmp_path, store=None))
    assert job.gates[0].digest == replace(alone, store_digest=job.store_digest).digest
    assert job.gates[0].folder != job.gates[1].folder
