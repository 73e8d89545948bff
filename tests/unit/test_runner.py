"""Whole runs on generators without a model: isolation, resuming, shards, and what ends up on disk."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conformance import results as results_file
from conformance import runner
from conformance.case import Case
from conformance.errors import InputError
from conformance.jsonio import read_json
from conformance.matrix import all_cases
from conformance.results import CaseResult, Results
from conformance.runner import Options, collect, make_jobs, open_out, run_jobs
from conformance.verdicts import EXIT_INFRA, Verdict
from reports.merge import merge
from reports.render import write_report

CASES = [case for case in all_cases() if case.model == "ltx-2.3"]


@pytest.fixture(autouse=True)
def _no_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "prepare_checkpoints", lambda models, options: dict.fromkeys(models, ("/none", "0")))


def _run(cases: list[Case], options: Options) -> Results:
    open_out(options.out, resume=options.resume)
    got = list(run_jobs(make_jobs(cases, options), options))
    whole = collect(cases, got, options, time.time(), "test")
    write_report(whole, options.out)
    return whole


def _options(out: Path, **more: Any) -> Options:
    return Options(out=out, **{"engine": "fakes:good", "reference": "fakes:good", "timeout": 60.0, **more})


def _comparable(case: CaseResult) -> CaseResult:
    return replace(case, seconds={})


def test_every_way_to_fail_has_its_own_verdict_and_spares_the_rest(tmp_path: Path) -> None:
    whole = _run(CASES, _options(tmp_path, engine="fakes:faulty", timeout=6.0))
    got = {(case.axes["variant"], case.axes["dtype"]): case for case in whole.cases}
    expected = {
        "unguided": (Verdict.INFRA_ERROR, "killed by SIGSEGV at: engine, after latents/final/audio"),
        "cfg": (Verdict.INFRA_ERROR, "time limit: no result within 6 s; last seen at: engine, after latents"),
        "all-guidance": (Verdict.FAIL, "finite"),
        "all-guidance-odd": (Verdict.FAIL, "frames"),
        "cfg-batch2": (Verdict.FAIL, "constant"),
        "unguided-50fps-6steps": (Verdict.INFRA_ERROR, "engine failed: RuntimeError: the kernel <b>exploded</b>"),
        "cfg-own-schedule": (Verdict.INCOMPARABLE, "noise"),
    }
    for variant, (verdict, words) in expected.items():
        assert got[variant, "fp32"].verdict == verdict, variant
        assert words in got[variant, "fp32"].reason, variant
        assert got[variant, "bf16"].verdict == Verdict.PASS_EXACT, variant
    assert whole.exit_code == EXIT_INFRA
    assert len(whole.cases) == len(CASES)
    assert results_file.load(tmp_path / "results.json").counts == whole.counts
    page = (tmp_path / "index.html").read_text()
    assert all(case.id in page.replace("&#43;", "+") for case in CASES)
    assert "<b>exploded" not in page
    for case in whole.cases:
        assert (tmp_path / case.files["log"]).is_file() or "log" not in case.files


def test_an_unsupported_case_is_not_an_error_of_the_infrastructure(tmp_path: Path) -> None:
    whole = _run(CASES[:1], _options(tmp_path, engine="fakes:unsupporting"))
    assert whole.cases[0].verdict == Verdict.UNSUPPORTED
    assert "tp2" in whole.cases[0].reason
    assert whole.exit_code == 4


def test_without_a_stored_reference_a_case_is_not_judged(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    whole = _run(CASES[:1], _options(tmp_path / "out", reference="stored", store=tmp_path / "store"))
    assert whole.exit_code in (3, 4)
    assert whole.cases[0].verdict != Verdict.PASS


def test_frames_and_heat_maps_of_every_frame_are_on_disk(tmp_path: Path) -> None:
    whole = _run(CASES[:1], _options(tmp_path))
    frames = whole.cases[0].frames
    assert [frame.index for frame in frames] == [0, 1, 2]
    for frame in frames:
        for path in (frame.candidate, frame.reference, frame.heat):
            assert (tmp_path / path).stat().st_size > 0


def test_a_resumed_run_keeps_what_is_finished_and_equals_one_run(tmp_path: Path) -> None:
    whole = _run(CASES, _options(tmp_path / "whole"))
    part = _run(CASES[:5], _options(tmp_path / "part"))
    kept = {case.id: (tmp_path / "part" / case.files["log"]).stat().st_mtime_ns for case in part.cases}
    resumed = _run(CASES, _options(tmp_path / "part", resume=True))
    assert [_comparable(case) for case in resumed.cases] == [_comparable(case) for case in whole.cases]
    for case in part.cases:
        assert (tmp_path / "part" / case.files["log"]).stat().st_mtime_ns == kept[case.id]


def test_resuming_with_another_engine_keeps_nothing(tmp_path: Path) -> None:
    _run(CASES[:2], _options(tmp_path))
    again = _run(CASES[:2], _options(tmp_path, engine="fakes:unsupporting", resume=True))
    assert {case.verdict for case in again.cases} == {Verdict.UNSUPPORTED}


def test_resuming_tries_infrastructure_errors_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [case for case in CASES if case.variant == "unguided" and case.dtype == "fp32"]
    first = _run(cases, _options(tmp_path, engine="fakes:faulty"))
    assert first.cases[0].verdict == Verdict.INFRA_ERROR
    log = tmp_path / first.cases[0].files["log"]
    before = log.stat().st_mtime_ns
    _run(cases, _options(tmp_path, engine="fakes:faulty", resume=True))
    assert log.stat().st_mtime_ns != before


def test_a_half_written_result_is_run_again(tmp_path: Path) -> None:
    whole = _run(CASES[:1], _options(tmp_path))
    path = next((tmp_path / "cases").glob("*/result.json"))
    path.write_text(path.read_text()[:100])
    again = _run(CASES[:1], _options(tmp_path, resume=True))
    assert _comparable(again.cases[0]) == _comparable(whole.cases[0])


def test_merged_shards_equal_one_run(tmp_path: Path) -> None:
    whole = _run(CASES, _options(tmp_path / "whole"))
    for index in (1, 2):
        _run(CASES[index - 1 :: 2], _options(tmp_path / f"{index}", shard=f"{index}/2"))
    merged = merge([tmp_path / "2/results.json", tmp_path / "1/results.json"], tmp_path / "merged")
    by_id = {case.id: _comparable(case) for case in merged.cases}
    assert by_id == {case.id: _comparable(case) for case in whole.cases}
    assert (tmp_path / "merged" / merged.cases[0].frames[0].candidate).is_file()


def test_a_folder_that_is_not_a_run_is_never_touched(tmp_path: Path) -> None:
    precious = tmp_path / "cases" / "thesis.txt"
    precious.parent.mkdir()
    precious.write_text("years of work")
    with pytest.raises(InputError, match="holds no run"):
        open_out(tmp_path, resume=False)
    with pytest.raises(InputError, match="holds no run"):
        open_out(tmp_path, resume=True)
    with pytest.raises(InputError, match="is a file"):
        open_out(precious, resume=False)
    assert precious.read_text() == "years of work"


def _kill_after_some(command: list[str], out: Path, environment: dict[str, str]) -> int:
    """Start a run, SIGKILL it once three cases are finished; returns how many were."""
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 100
    while len(list(out.glob("cases/*/result.json"))) < 3:
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return len(list(out.glob("cases/*/result.json")))


@pytest.mark.slow
def test_killing_the_runner_half_way_and_resuming_gives_the_results_of_one_run(tmp_path: Path) -> None:
    paths = os.pathsep.join([str(Path(__file__).parents[2]), str(Path(__file__).parent)])
    environment = {**os.environ, "PYTHONPATH": paths}
    base = [sys.executable, "-m", "conformance.cli", "run", "ltx-2.3", "--jobs", "2"]
    base += ["--engine", "fakes:slow", "--reference", "fakes:good", "--out"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    finished = _kill_after_some([*base, str(killed)], killed, environment)
    assert 3 <= finished < len(CASES)
    assert not (killed / "results.json").exists()
    for out, more in ((killed, ["--resume"]), (whole, [])):
        done = subprocess.run([*base, str(out), *more], env=environment, capture_output=True, text=True, timeout=110)
        assert done.returncode == 0, done.stderr

    def normal(folder: Path) -> str:
        text = str([_comparable(case) for case in results_file.load(folder / "results.json").cases])
        return re.sub(r"'total': [0-9.]+", "", text)

    assert normal(killed) == normal(whole)
    assert read_json(killed / "results.json")["exit_code"] == 0
