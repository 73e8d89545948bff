"""Functions on ranks: results by rank; what raises, dies or hangs ends them all and is named; nobody is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
import torch.distributed as dist
from ranks import run_ranks

from conformance import ranks
from conformance.collectives import COLLECTIVES
from conformance.errors import RankFailed, UnsupportedCase


def _started(rank: int, folder: Path) -> None:
    """Leave this rank's process id, and start a process as a library's helper would be."""
    (folder / f"rank-{rank}").write_text(str(os.getpid()))
    helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (folder / f"helper-{rank}").write_text(str(helper.pid))
    dist.barrier()


def _alive(folder: Path) -> list[str]:
    """Names of the processes that ``_started`` noted and that still run."""
    time.sleep(0.2)
    found = []
    for path in sorted(folder.iterdir()):
        pid = int(path.read_text())
        if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            found.append(path.name)
    return found


def test_results_come_by_rank_from_one_group() -> None:
    def talk(rank: int, add: float) -> tuple[torch.Tensor, torch.Tensor, int]:
        total = torch.full((3,), rank + add)
        dist.all_reduce(total)
        swapped = torch.empty(2)
        dist.all_to_all_single(swapped, torch.tensor([10.0 * rank, 10.0 * rank + 1]))
        return total, swapped, torch.get_num_threads()

    torch.randn(300, 300) @ torch.randn(300, 300)  # the caller has computed before
    results = run_ranks(2, talk, 0.5)
    assert [result[0].tolist() for result in results] == [[2.0] * 3] * 2
    assert [result[1].tolist() for result in results] == [[0.0, 10.0], [1.0, 11.0]]
    assert [result[2] for result in results] == [1, 1]


def test_four_ranks_have_sub_groups() -> None:
    def talk(rank: int) -> float:
        pairs = [dist.new_group([0, 1]), dist.new_group([2, 3])]
        value = torch.tensor(float(rank))
        dist.all_reduce(value, group=pairs[rank // 2])
        return value.item()

    assert run_ranks(4, talk) == [1.0, 1.0, 5.0, 5.0]


def _raise(rank: int) -> None:
    if rank == 1:
        raise ZeroDivisionError("no heads left")
    dist.all_reduce(torch.ones(2))


def _die(rank: int) -> None:
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    dist.all_reduce(torch.ones(2))


def _leave(rank: int) -> None:
    if rank == 0:
        dist.all_gather(list(torch.empty(2, 2)), torch.ones(2))


def _sleep(rank: int) -> None:
    if rank == 1:
        time.sleep(600)
    dist.broadcast(torch.ones(2), src=0)
    dist.all_reduce(torch.ones(2))


def _differ(rank: int) -> None:
    if rank == 0:
        dist.recv(torch.ones(1), src=1)
    else:
        dist.all_reduce(torch.ones(1))


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (_raise, ("rank 1 of 2 raised ZeroDivisionError: no heads left", "after barrier, its collective number 1")),
        (_die, ("rank 1 of 2 died: killed by SIGKILL", "after barrier, its collective number 1")),
        (
            _sleep,
            ("no result within 2 s", "rank 1 of 2 hangs at: started; after barrier", "rank 0 is at: started; wait"),
        ),
        (_leave, ("no rank moved", "rank 0 of 2 hangs at: started; waiting in all_gather", "rank 1 has returned")),
        (_differ, ("rank 0 of 2 hangs at: started; waiting in recv", "rank 1 of 2 hangs at: started; waiting in all_")),
    ],
)
def test_a_failing_rank_ends_all_and_is_named(
    fault: object, words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(rank: int) -> None:
        _started(rank, tmp_path)
        fault(rank)  # type: ignore[operator]

    monkeypatch.setattr(ranks, "_STUCK", 1.0)
    started = time.monotonic()
    with pytest.raises(RankFailed) as error:
        run_ranks(2, work, timeout=2.0)
    assert time.monotonic() - started < 5
    for text in words:
        assert text in str(error.value)
    assert len(list(tmp_path.iterdir())) == 4
    assert _alive(tmp_path) == []


def test_nothing_outlives_a_good_run_either(tmp_path: Path) -> None:
    run_ranks(2, _started, tmp_path)
    assert _alive(tmp_path) == []


def test_an_error_of_the_harness_is_raised_as_it_is() -> None:
    def refuse(rank: int) -> None:
        raise UnsupportedCase("no such layout")

    with pytest.raises(UnsupportedCase, match=r"^no such layout$"):
        run_ranks(2, refuse)


def test_ranks_die_with_their_caller(tmp_path: Path) -> None:
    script = tmp_path / "caller.py"
    noted = tmp_path / "noted"
    noted.mkdir()
    script.write_text(
        "import pathlib, time\n"
        "from test_ranks import _started\n"
        "from ranks import run_ranks\n"
        "def work(rank):\n"
        f"    _started(rank, pathlib.Path({str(noted)!r}))\n"
        "    time.sleep(600)\n"
        "run_ranks(2, work, timeout=100)\n"
    )
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    caller = subprocess.Popen([sys.executable, script], env={**os.environ, "PYTHONPATH": paths})
    limit = time.monotonic() + 30
    while len(list(noted.iterdir())) < 4 and time.monotonic() < limit:
        time.sleep(0.1)
    assert len(_alive(noted)) == 4
    caller.kill()
    caller.wait()
    assert [name for name in _alive(noted) if name.startswith("rank")] == []
    assert _alive(noted) == []


def test_every_collective_is_noted() -> None:
    class Places(list[str]):
        def enter(self, collective: str) -> None:
            self.append(collective)

        def inside(self, inside: bool) -> None:
            pass

        def exchange(self) -> None:
            pass

    lists = hasattr(dist.ProcessGroup, "all_to_all_single")  # gloo of torch 2.11 takes none

    def call(rank: int) -> list[str]:
        from conformance.collectives import record

        places = Places()
        record(places)
        one, two = torch.ones(2), torch.empty(4)
        dist.all_reduce(one)
        dist.all_gather([torch.empty(2), torch.empty(2)], one)
        dist.all_gather_into_tensor(two, one)
        if lists:
            dist.all_to_all([torch.empty(1), torch.empty(1)], [one[:1], one[1:]])
        dist.all_to_all_single(torch.empty(2), one)
        dist.broadcast(one, src=0)
        dist.reduce(one, dst=0)
        dist.reduce_scatter(torch.empty(1), [one[:1], one[1:]])
        dist.reduce_scatter_tensor(torch.empty(1), one)
        dist.gather(one, [torch.empty(2), torch.empty(2)] if rank == 0 else None, dst=0)
        dist.scatter(one, [torch.ones(2), torch.ones(2)] if rank == 0 else None, src=0)
        ops = [dist.P2POp(dist.isend, one, 1 - rank), dist.P2POp(dist.irecv, torch.empty(2), 1 - rank)]
        for work in dist.batch_isend_irecv(ops):
            work.wait()
        dist.barrier()
        return list(places)

    expected = [
        *(
            "all_reduce",
            "all_gather",
            "all_gather_into_tensor",
            *(("all_to_all",) if lists else ()),
            "all_to_all_single",
            "broadcast",
            "reduce",
        ),
        *("reduce_scatter", "reduce_scatter_tensor", "gather", "scatter", "send", "recv", "barrier"),
    ]
    assert run_ranks(2, call) == [expected, expected]
    assert set(expected) <= set(COLLECTIVES.values())
