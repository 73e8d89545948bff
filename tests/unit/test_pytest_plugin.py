"""The plugin, from another repository: cases are items, -k selects, failures read well, the report is written."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

import pytest
from PIL import Image

pytest_plugins = ["pytester"]

PATCH = """
from conformance import runner

def pytest_configure(config):
    real = runner.prepare_checkpoints
    runner.prepare_checkpoints = lambda models, options, on_place: dict.fromkeys(models, ("/none", "0"))
    config.add_cleanup(lambda: setattr(runner, "prepare_checkpoints", real))  # this is the process of all tests
"""


def _run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    pytester.makeconftest(PATCH)
    pytester.syspathinsert(Path(__file__).parent)
    installed = any(e.value == "conformance.pytest_plugin" for e in entry_points(group="pytest11"))
    plugin = () if installed else ("-p", "conformance.pytest_plugin")
    fakes = ("--conformance-reference", "fakes:good", "--conformance-out", "report")
    return pytester.runpytest_inprocess(*plugin, "-p", "no:cacheprovider", *fakes, *arguments)


def test_cases_are_items_that_k_selects(pytester: pytest.Pytester) -> None:
    result = _run(
        pytester, "--conformance", "--conformance-engine", "fakes:good", "-k", "ltx-2.3 and cfg-batch2 and bf16", "-v"
    )
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        ["*ltx-2.3/one-stage-t2v/cfg-batch2@single+diffusers-bf16*PASSED*", "*report: *index.html"]
    )
    assert (pytester.path / "report" / "index.html").is_file()
    assert (pytester.path / "report" / "results.json").is_file()


@pytest.mark.slow
def test_k_selects_what_runs_fused(pytester: pytest.Pytester) -> None:
    result = _run(pytester, "--conformance", "--conformance-engine", "fakes:good", "-k", "kernels and fp32")
    result.assert_outcomes(passed=1)


def test_a_failing_case_fails_with_verdict_reason_and_command(pytester: pytest.Pytester) -> None:
    result = _run(
        pytester,
        "--conformance",
        "--conformance-engine",
        "fakes:faulty",
        "-k",
        "ltx-2.3 and one-stage-t2v and all-guidance and fp32 and not odd and not kernels",
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*FAIL: *finite*", "*re-run: conformance run 'ltx-2.3/one-stage-t2v/all-guidance@*"])
    assert "Traceback" not in result.stdout.str()


def test_without_the_flag_nothing_is_collected(pytester: pytest.Pytester) -> None:
    assert _run(pytester).ret == pytest.ExitCode.NO_TESTS_COLLECTED


def test_a_foreign_folder_is_refused_for_every_case(pytester: pytest.Pytester) -> None:
    (pytester.path / "report" / "cases").mkdir(parents=True)
    (pytester.path / "report" / "cases" / "thesis.txt").write_text("years of work")
    result = _run(pytester, "--conformance", "--conformance-engine", "fakes:good", "-k", "ltx-2.3 and cfg-batch2")
    result.stdout.fnmatch_lines(["*--out report: is not empty and holds no run*"])
    assert result.parseoutcomes().keys() - {"warnings"} == {"failed", "deselected"}  # other plugins warn
    assert (pytester.path / "report" / "cases" / "thesis.txt").is_file()


def test_workers_of_another_plugin_are_refused(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        workers="def pytest_addoption(parser): parser.addoption('--workers', dest='numprocesses', type=int)"
    )
    pytester.syspathinsert()
    result = _run(pytester, "-p", "workers", "--workers", "2", "--conformance")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--conformance isolates its cases itself*"])


def test_an_unknown_suite_is_a_usage_error(pytester: pytest.Pytester) -> None:
    result = _run(pytester, "--conformance", "--conformance-suite", "nightly")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*'suite' is 'nightly'; expected one of*"])


@pytest.mark.slow
def test_departures_reach_the_cases(pytester: pytest.Pytester) -> None:
    (pytester.path / "config.json").write_text('{"numerics": {"stg": "zeros", "attention": "flash"}}')
    flags = ("--conformance-config", "config.json", "--conformance-set", "attention=math")
    more = ("--conformance-quantization", "none", "--conformance-kernels", "on")
    picked = ("-k", "ltx-2.3 and one-stage-t2v and cfg-batch2 and bf16", "-v")
    result = _run(pytester, "--conformance", "--conformance-engine", "fakes:good", *flags, *more, *picked)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*cfg-batch2@single+diffusers-bf16+none+kernels+stg=zeros+attention=math*PASSED*"])


@pytest.mark.slow
def test_a_picture_collects_the_cases_that_take_one(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONFORMANCE_CACHE", str(pytester.path / "cache"))
    Image.new("RGB", (40, 30), "teal").save(pytester.path / "given.png")
    flags = ("--conformance", "--conformance-engine", "fakes:good", "--conformance-image")
    result = _run(pytester, *flags, "given.png", "-k", "ltx-2.3 and unguided and bf16", "-v")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*one-stage-ti2v/unguided@single+diffusers-bf16+image=*PASSED*"])
    result = _run(pytester, *flags, "absent.png")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--conformance-image absent.png: cannot be read: No such file*"])


def test_a_bad_departure_is_a_usage_error(pytester: pytest.Pytester) -> None:
    result = _run(pytester, "--conformance", "--conformance-set", "atention=math")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["*--conformance-set: unknown field of the numerics 'atention'; nearest is 'attention'*"]
    )
