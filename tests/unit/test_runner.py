"""Whole runs on generators without a model: isolation, resuming, shards, and what ends up on disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import FAULTS

from conformance import results as results_file
from conformance import runner
from conformance.case import Case
from conformance.errors import InputError
from conformance.jsonio import read_json
from conformance.matrix import all_cases
from conformance.pool import Outcome
from conformance.results import CaseResult, Results, unjudged
from conformance.runner import Options, collect, make_jobs, open_out, run_jobs
from conformance.verdicts import EXIT_INFRA, Verdict
from conformance.worker import write_result
from reference_impl.tiny.build import cached
from reports.merge import merge
from reports.render import write_report
from reports.text import visible

CASES = [
    case
    for case in all_cases()
    if case.id.startswith("ltx-2.3/one-stage-t2v/") and case.variant in FAULTS and case.layout.world == 1
]


@pytest.fixture(autouse=True)
def _no_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        runner, "prepare_checkpoints", lambda models, options, on_place: dict.fromkeys(models, ("/none", "0"))
    )


def _run(cases: list[Case], options: Options, *, report: bool = False) -> Results:
    with open_out(options.out, resume=options.resume):
        got = list(run_jobs(make_jobs(cases, options), options))
        whole = collect(cases, got, options, time.time(), "test")
        if report:
            write_report(whole, options.out)
    return whole


def _options(out: Path, **more: Any) -> Options:
    return Options(out=out, **{"engine": "fakes:good", "reference": "fakes:good", "timeout": 60.0, **more})


def _comparable(case: CaseResult) -> CaseResult:
    return replace(case, seconds={})


def test_every_way_to_fail_has_its_own_verdict_and_spares_the_rest(tmp_path: Path) -> None:
    cases = [case for case in CASES if case.dtype == "fp32" or case.variant in ("cfg", "all-guidance")]
    whole = _run(cases, _options(tmp_path, engine="fakes:faulty", timeout=6.0), report=True)
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
    for variant in ("cfg", "all-guidance"):
        assert got[variant, "bf16"].verdict == Verdict.PASS_EXACT, variant
    assert whole.exit_code == EXIT_INFRA
    assert len(whole.cases) == len(cases)
    assert results_file.load(tmp_path / "results.json").counts == whole.counts
    page = (tmp_path / "index.html").read_text()
    assert all(case.id in page.replace("&#43;", "+") for case in cases)
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


def test_every_frame_is_on_disk_and_a_heat_map_of_each_that_differs(tmp_path: Path) -> None:
    cases = [case for case in CASES if case.variant == "cfg-batch2" and case.dtype == "fp32"]
    whole = _run(cases, _options(tmp_path, engine="fakes:faulty"))
    frames = whole.cases[0].frames
    assert [(frame.batch, frame.index) for frame in frames] == [(b, f) for b in range(2) for f in range(3)]
    for frame in frames:
        for path in (frame.candidate, frame.reference):
            assert (tmp_path / path).stat().st_size > 0
    changed = [(frame.batch, frame.index) for frame in frames if frame.heat]
    assert changed == [(0, 1)]
    assert len(list(tmp_path.glob("cases/*/heat/*.png"))) == 1


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        ("floats", "engine failed: sample: 'frames' is 'float32 [1, 3, 32, 48, 3]'; expected a numpy array, uint8"),
        ("nothing", "engine failed: sample: is a NoneType; expected a Sample"),
        ("unjson", "engine failed: sample: resolved['dtype'] is not a JSON value"),
        ("names", "engine failed: sample: 'shared' is ['vae', 3]; expected a tuple of component names"),
        ("surrogate", "engine failed: RuntimeError: \\ud800 <b>"),
    ],
)
def test_an_engine_that_breaks_the_contract_is_told_which_part(tmp_path: Path, engine: str, words: str) -> None:
    whole = _run(CASES[:1], _options(tmp_path, engine=f"fakes:{engine}"))
    assert whole.cases[0].verdict == Verdict.INFRA_ERROR
    assert words in visible(whole.cases[0].reason)


def test_a_result_that_cannot_be_read_back_spares_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = _options(tmp_path)
    job = make_jobs(CASES[:1], options)[0]
    outcome = Outcome(key=job.case.id, kind="done", value="PASS", message="", seconds=1.0)
    (result,) = runner.results_of(job, outcome)
    assert result.verdict == Verdict.INFRA_ERROR
    assert "the result cannot be read back" in result.reason


def test_the_command_of_a_result_names_a_checkpoint_that_is_not_the_projects(tmp_path: Path) -> None:
    job = make_jobs(CASES[:1], _options(tmp_path))[0]
    result = unjudged(job.case, job.gate, Verdict.UNSUPPORTED, "", seconds={})
    commands = {}
    for name, folder in (("own", str(cached(job.case.model))), ("given", "/models/my model")):
        written = replace(job, out=str(tmp_path / name), checkpoint=folder)
        write_result(written, result)
        commands[name] = read_json(tmp_path / name / job.folder / "result.json")["command"]
    assert commands["own"].endswith("--engine fakes:good --reference fakes:good")
    assert commands["given"] == f"{commands['own']} --checkpoint '/models/my model'"


def test_a_folder_is_one_run_at_a_time_and_an_old_report_does_not_outlive_the_start(tmp_path: Path) -> None:
    with open_out(tmp_path, resume=False):
        (tmp_path / "results.json").write_text("{}")
        with pytest.raises(InputError, match="another run is writing there"), open_out(tmp_path, resume=True):
            pass
    with open_out(tmp_path, resume=True):
        assert not (tmp_path / "results.json").exists()


def test_a_resumed_run_keeps_what_is_finished_and_equals_one_run(tmp_path: Path) -> None:
    whole = _run(CASES[:5], _options(tmp_path / "whole"))
    part = _run(CASES[:3], _options(tmp_path / "part"))
    kept = {case.id: (tmp_path / "part" / case.files["log"]).stat().st_mtime_ns for case in part.cases}
    resumed = _run(CASES[:5], _options(tmp_path / "part", resume=True))
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
    whole = _run(CASES[:4], _options(tmp_path / "whole"))
    for index in (1, 2):
        _run(CASES[:4][index - 1 :: 2], _options(tmp_path / f"{index}", shard=f"{index}/2"), report=True)
    merged = merge([tmp_path / "2/results.json", tmp_path / "1/results.json"], tmp_path / "merged")
    by_id = {case.id: _comparable(case) for case in merged.cases}
    assert by_id == {case.id: _comparable(case) for case in whole.cases}
    assert (tmp_path / "merged" / merged.cases[0].frames[0].candidate).is_file()


def test_a_folder_that_is_not_a_run_is_never_touched(tmp_path: Path) -> None:
    precious = tmp_path / "cases" / "thesis.txt"
    precious.parent.mkdir()
    precious.write_text("years of work")
    for out, resume, words in ((tmp_path, False, "holds no run"), (tmp_path, True, "holds no run")):
        with pytest.raises(InputError, match=words), open_out(out, resume=resume):
            pass
    for out, words in ((precious, "is a file"), (precious / "x", "cannot be written"), (Path("/proc/x"), "cannot be")):
        with pytest.raises(InputError, match=words), open_out(out, resume=False):
            pass
    assert precious.read_text() == "years of work"


def _kill_after_some(command: list[str], out: Path, environment: dict[str, str]) -> int:
    """Start a run, SIGKILL it once two cases are finished; returns how many were."""
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 100
    while len(list(out.glob("cases/*/result.json"))) < 2:
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return len(list(out.glob("cases/*/result.json")))


_KILLED = """
import sys
from conformance import cli, runner
runner.prepare_checkpoints = lambda models, options, on_place: dict.fromkeys(models, ("/none", "0"))
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_killing_the_runner_half_way_and_resuming_gives_the_results_of_one_run(tmp_path: Path) -> None:
    paths = os.pathsep.join([str(Path(__file__).parents[2]), str(Path(__file__).parent)])
    environment = {**os.environ, "PYTHONPATH": paths}
    cases, killed = CASES[:5], tmp_path / "killed"
    command = [sys.executable, "-c", _KILLED, "run", *(case.id for case in cases), "--jobs", "2", "--timeout", "60"]
    command += ["--engine", "fakes:slow", "--reference", "fakes:good", "--out", str(killed)]
    finished = _kill_after_some(command, killed, environment)
    assert 2 <= finished < len(cases)
    assert not (killed / "results.json").exists()
    kept = {path: path.stat().st_mtime_ns for path in killed.glob("cases/*/result.json")}
    resumed = _run(cases, _options(killed, engine="fakes:slow", resume=True), report=True)
    assert kept == {path: path.stat().st_mtime_ns for path in kept}
    whole = _run(cases, _options(tmp_path / "whole", engine="fakes:slow"))
    assert [_comparable(case) for case in resumed.cases] == [_comparable(case) for case in whole.cases]
    assert read_json(killed / "results.json")["exit_code"] == 0
