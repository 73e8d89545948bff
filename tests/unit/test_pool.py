"""Isolation: whatever one task does, the others finish and its end is told in words."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from conformance.errors import InputError
from conformance.pool import Outcome, Report, Task, run_tasks


def double(argument: int, report: Report) -> int:
    return 2 * argument


def raises(argument: Any, report: Report) -> None:
    raise ValueError("no such thing")


def refuses(argument: Any, report: Report) -> None:
    raise InputError("field 'x' is 1; expected 2")


def segfaults(argument: Any, report: Report) -> None:
    report("in the middle")
    os.kill(os.getpid(), signal.SIGSEGV)


def exits(argument: Any, report: Report) -> None:
    os._exit(7)


def hangs(argument: Any, report: Report) -> None:
    report("step 3")
    # a grandchild, as a library's helper process would be
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    time.sleep(600)


def prints(argument: str, report: Report) -> None:
    print(argument)
    os.system(f"echo {argument} from below >&2")


def _run(tmp_path: Path, *tasks: tuple[Any, Any], timeout: float = 60.0, jobs: int = 2) -> dict[str, Outcome]:
    made = [
        Task(key=str(i), target=target, argument=argument, timeout=timeout, log=tmp_path / f"{i}.txt")
        for i, (target, argument) in enumerate(tasks)
    ]
    return {outcome.key: outcome for outcome in run_tasks(made, jobs=jobs)}


def test_failures_of_every_kind_leave_the_others_alone(tmp_path: Path) -> None:
    _run(tmp_path, (double, 0))  # the server is up
    got = _run(
        tmp_path,
        (raises, 0),
        (double, 4),
        (segfaults, 0),
        (exits, 0),
        (hangs, 0),
        (refuses, 0),
        (double, 5),
        timeout=3.0,
    )
    assert (got["1"].value, got["6"].value) == (8, 10)
    assert (got["0"].kind, got["0"].message) == ("error", "ValueError: no such thing")
    assert isinstance(got["5"].value, InputError)
    assert got["2"].kind == "crash"
    assert "killed by SIGSEGV at: in the middle" in got["2"].message
    assert got["3"].kind == "crash"
    assert "exited with code 7" in got["3"].message
    assert got["4"].kind == "timeout"
    assert "no result within 3 s; last seen at: step 3" in got["4"].message
    assert "in hangs" in (tmp_path / "4.txt").read_text(), "the log shows where it hung"
    assert "ValueError" in (tmp_path / "0.txt").read_text(), "the log has the traceback"
    time.sleep(0.2)
    assert not [p for p in psutil.process_iter(["cmdline"]) if "time.sleep(600)" in str(p.info["cmdline"])]


def test_output_of_a_task_and_its_children_goes_to_its_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    _run(tmp_path, (prints, "hello"))
    assert (tmp_path / "0.txt").read_text() == "hello\nhello from below\n"
    assert "hello" not in capfd.readouterr().out


def naps(argument: float, report: Report) -> tuple[float, float]:
    started = time.monotonic()
    time.sleep(argument)
    return started, time.monotonic()


@pytest.mark.parametrize(("jobs", "at_once"), [(1, {1}), (2, {2}), (4, {2, 3, 4})])
def test_tasks_run_side_by_side_but_no_more_than_asked(tmp_path: Path, jobs: int, at_once: set[int]) -> None:
    spans = [outcome.value for outcome in _run(tmp_path, *[(naps, 0.5)] * 4, jobs=jobs).values()]
    assert max(sum(begun <= moment < ended for begun, ended in spans) for moment, _ in spans) in at_once


def test_places_reach_the_parent(tmp_path: Path) -> None:
    seen = []
    task = Task(key="k", target=segfaults, argument=0, timeout=60, log=tmp_path / "log")
    list(run_tasks([task], jobs=1, on_place=lambda key, place: seen.append((key, place))))
    assert seen == [("k", "in the middle")]


def test_children_die_when_the_parent_is_killed(tmp_path: Path) -> None:
    program = textwrap.dedent(
        f"""
        import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
        from pathlib import Path
        from conformance.pool import Task, run_tasks
        import test_pool
        if __name__ == "__main__":
            task = Task(key="k", target=test_pool.marks_and_hangs, argument={str(tmp_path / "pid")!r}, timeout=600,
                        log=Path({str(tmp_path / "log")!r}))
            list(run_tasks([task], jobs=1))
        """
    )
    script = tmp_path / "parent.py"
    script.write_text(program)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    parent = subprocess.Popen([sys.executable, script], env=environment)
    pid_file = tmp_path / "pid"
    deadline = time.monotonic() + 60
    while not (pid_file.is_file() and pid_file.read_text()):
        assert parent.poll() is None, "the parent ended early"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    child = int(pid_file.read_text())
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the child outlived its parent"
        time.sleep(0.05)


def marks_and_hangs(argument: str, report: Report) -> None:
    Path(argument).write_text(str(os.getpid()))
    time.sleep(600)


def test_closing_the_run_kills_what_is_running(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    tasks = [
        Task(key="hang", target=marks_and_hangs, argument=str(pid_file), timeout=600, log=tmp_path / "a"),
        Task(key="quick", target=waits_for, argument=str(pid_file), timeout=600, log=tmp_path / "b"),
    ]
    outcomes = run_tasks(tasks, jobs=2)
    assert next(outcomes).key == "quick"
    child = int(pid_file.read_text())
    outcomes.close()  # type: ignore[attr-defined]
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


def waits_for(argument: str, report: Report) -> None:
    while not (Path(argument).is_file() and Path(argument).read_text()):
        time.sleep(0.02)
