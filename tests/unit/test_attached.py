"""Runs that torchrun starts: two real ranks, a generator without a model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conformance import attached, pool
from conformance.errors import InputError
from conformance.pool import Task, run_tasks

ROOT = Path(__file__).parent.parent.parent


def _torchrun(out: Path, engine: str, *more: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(ROOT), str(Path(__file__).parent), *sys.path])
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "conformance",
        "run",
    ]
    command += ["--suite", "parallel", "--out", str(out), "--engine", f"ranked_fakes:{engine}", *more]
    return subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def _cases(out: Path) -> dict[str, tuple[str, str]]:
    """Verdict and reason by layout and dtype."""
    found = json.loads((out / "results.json").read_text())["cases"]
    return {f"{case['axes']['layout']}-{case['axes']['dtype']}": (case["verdict"], case["reason"]) for case in found}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_ranks_that_are_there_already(tmp_path: Path) -> None:
    out = tmp_path / "good"
    done = _torchrun(out, "good", "ltx-2/one-stage-t2v/all-guidance@tp2*", "ltx-2/one-stage-t2v/all-guidance@cfg4*")
    assert (out / "results.json").is_file(), done.stderr
    cases = _cases(out)
    assert [cases["tp2-fp32"][0], cases["tp2-bf16"][0]] == ["PASS_EXACT"] * 2, done.stderr
    assert cases["cfg4-bf16"] == ("UNSUPPORTED", "engine: layout 'cfg4' needs 4 ranks, and 2 were started")
    assert done.stdout.count("cases passed") == 1  # rank 0 alone reports
    ledger = json.loads((out / "results.json").read_text())["cases"][0]["ledger"]["candidate"]
    assert (ledger["layout"], ledger["ranks"], ledger["backend"]) == ("tp2", 2, "gloo")
    assert "2 of 3" in done.stdout
    again = _torchrun(out, "good", "ltx-2/one-stage-t2v/all-guidance@tp2*", "--resume", "--shard", "1/2")
    assert again.returncode == 0, again.stderr
    assert list(_cases(out)) == ["tp2-fp32"]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("engine", "verdict", "words"),
    [
        ("raises", "INFRA_ERROR", "rank 1 of 2: raised ZeroDivisionError: no heads left, at: engine, after step.000"),
        ("hangs", "INFRA_ERROR", "rank 1 of 2: no result within 15 s; last seen at: engine, after step.000/uncond"),
        ("diverges", "FAIL", "engine: ranks disagree: tap step.000/guided_x0/video is not the same on rank 0 as on"),
    ],
)
def test_a_failing_rank_ends_its_case_on_all(engine: str, verdict: str, words: str, tmp_path: Path) -> None:
    done = _torchrun(tmp_path, engine, "ltx-2/one-stage-t2v/all-guidance@tp2*", "--timeout", "15")
    cases = _cases(tmp_path)
    assert cases["tp2-fp32"][0] == "PASS_EXACT", done.stderr
    assert cases["tp2-bf16"][0] == verdict
    assert cases["tp2-bf16"][1].startswith(words)
    assert done.returncode != 0


def test_only_a_whole_environment_is_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert attached.here() is None
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert attached.here() is None
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="'RANK' is None; expected a whole number"):
        attached.here()
    for name, value in (("RANK", "1"), ("LOCAL_RANK", "1"), ("MASTER_PORT", "29500")):
        monkeypatch.setenv(name, value)
    place = attached.here()
    assert place is not None
    assert (place.rank, place.world, place.local, place.port) == (1, 2, 1, 29500)


def _sleep(argument: float, report: pool.Report) -> None:
    import time

    report("asleep")
    time.sleep(argument)


def test_a_pool_stops_when_it_is_told(tmp_path: Path) -> None:
    task = Task(key="a", target=_sleep, argument=600.0, timeout=60.0, log=tmp_path / "log")
    asked = iter(["", "", "", "", "", "", "the other left"])
    outcome = next(run_tasks([task], jobs=1, stop=lambda: next(asked, "the other left")))
    assert outcome.kind == "stopped"
    assert outcome.message.startswith("the other left; last seen at: ")


def test_wide_tasks_count_as_what_they_start(tmp_path: Path) -> None:
    def task(key: str, width: int) -> Task:
        return Task(key=key, target=_sleep, argument=2.0, timeout=60.0, log=tmp_path / key, width=width)

    together: list[set[str]] = []
    running: set[str] = set()

    def on_place(key: str, place: str) -> None:
        running.add(key)
        together.append(set(running))

    for outcome in run_tasks([task("a", 1), task("b", 1), task("wide", 4), task("c", 1)], jobs=2, on_place=on_place):
        assert outcome.kind == "done"
        running.discard(outcome.key)
    assert {"a", "b"} in together
    assert {"wide"} in together
    assert not [keys for keys in together if "wide" in keys and len(keys) > 1]
