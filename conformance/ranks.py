"""Ranks: one function on several processes of this machine, inside one torch.distributed process group.

The ranks are forked from the caller, which has paid the imports, find each other through a file (no port), and are
watched: one that raises, dies or hangs ends them all at once, with one error that names the rank, where it was and the
last collective it entered. They die with the caller, whatever ends it.
"""

from __future__ import annotations

import contextlib
import ctypes
import datetime
import faulthandler
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from conformance.collectives import record
from conformance.errors import ConformanceError, RankFailed, UnsupportedCase
from conformance.places import Board, Places, State
from conformance.pool import death

_POLL = 0.1  # seconds between looks at where the ranks are
_GRACE = 0.2  # seconds in which the others may show that they failed first
_STUCK = 20.0  # seconds without any change, all ranks inside collectives: nobody will come any more
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, kw_only=True)
class Rank:
    """What a rank knows of its launch.

    device: number of its CUDA device on this machine. store: shared by the ranks, for what is no collective of the
    engine. report: tells the launcher where it is. enter: tells it that the others are needed for what comes.
    exchanges: how often the steps of each stage have exchanged something with other ranks.
    """

    index: int
    world: int
    device: int
    store: dist.Store
    report: Callable[[str], None]
    enter: Callable[[str], None]
    exchanges: Mapping[str, int]


@dataclass
class _Process:
    process: Any
    pipe: Connection
    end: tuple[str, Any] | None = None  # ("done", value), ("raised", exception or text) or ("died", how)


def run(
    world: int,
    function: Callable[..., Any],
    *args: Any,
    backend: str = "gloo",
    timeout: float,
    threads: int = 1,
    on_place: Callable[[str], None] = lambda place: None,
) -> list[Any]:
    """``function(Rank, *args)`` on ``world`` forked ranks, inside an initialised default group; results by rank.

    backend: ``gloo``, or ``nccl`` where rank r owns ``cuda:r``. timeout: seconds for all of it. threads: CPU threads a
    rank. on_place: told where the ranks are when that changes. Results must be picklable. The caller must not have
    touched CUDA. RankFailed when a rank raises, dies or hangs; a ConformanceError that one raised is raised as it is.
    """
    board = Board(world)
    guard = _fork(_guard, [])
    started: list[_Process] = []
    with tempfile.TemporaryDirectory(prefix="ranks-") as folder:
        meeting = str(Path(folder) / "store")
        try:
            os.setpgid(guard.process.pid, guard.process.pid)
            for index in range(world):
                setting = (index, world, meeting, backend, timeout, threads, guard.process.pid, os.getpid())
                started.append(_fork(_rank_main, [guard, *started], setting, board, function, args))
            _supervise(started, board, time.monotonic() + timeout, timeout, on_place)
            for each in started:
                each.pipe.send_bytes(b"go")
            for each in started:
                each.process.join(timeout=5)
            return [_value(each) for each in started]
        finally:
            _kill(guard, started)


def _fork(main: Callable[..., None], others: Sequence[_Process], *args: Any) -> _Process:
    """``main(pipe, *args)`` in a child that keeps no other pipe of ours open: one would hide that we are gone."""
    mp = multiprocessing.get_context("fork")
    mine, theirs = mp.Pipe()
    not_its = [mine, *(each.pipe for each in others)]
    process = mp.Process(target=_child, args=(main, not_its, theirs, *args))
    with warnings.catch_warnings():  # 3.12 warns of threads: none of the caller's holds a lock that a rank takes
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    theirs.close()
    return _Process(process, mine)


def _child(main: Callable[..., None], not_mine: Sequence[Connection], pipe: Connection, *args: Any) -> None:
    for each in not_mine:
        each.close()
    main(pipe, *args)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # what waits for other ranks at a regular exit may wait for ever


def _guard(pipe: Connection) -> None:
    """Lead the ranks' process group, and end it, with all that they started, when the caller is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _wait(pipe)
    os.killpg(0, signal.SIGKILL)


def _wait(pipe: Connection) -> None:
    """Until the caller says something, or is gone."""
    with contextlib.suppress(EOFError, OSError):
        pipe.recv_bytes()


def _rank_main(
    pipe: Connection,
    setting: tuple[int, int, str, str, float, int, int, int],
    board: Board,
    function: Callable[..., Any],
    args: tuple[Any, ...],
) -> None:
    index, world, meeting, backend, timeout, threads, group, caller = setting
    os.setpgid(0, group)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != caller:
        return
    faulthandler.register(signal.SIGUSR1, file=2)
    try:
        places = Places(board, index)
        torch.set_num_threads(threads)
        record(places)
        places.report("meeting the other ranks")
        store = dist.FileStore(meeting, world)
        initialise(backend, store, index, world, timeout, device=index, one_machine=True)
        places.report("started")
        own = dist.PrefixStore("harness", store)
        me = Rank(
            index=index,
            world=world,
            device=index,
            store=own,
            report=places.report,
            enter=places.enter,
            exchanges=places.exchanges,
        )
        answer = ("done", function(me, *args))
        data = pickle.dumps(answer)
    except BaseException as error:
        print(f"rank {index}:", file=sys.stderr)
        traceback.print_exc()
        known = isinstance(error, ConformanceError) and type(error).__module__ == ConformanceError.__module__
        text = f"{type(error).__name__}: {str(error).strip() or 'no message'}"
        data = pickle.dumps(("raised", error if known else text))
    with contextlib.suppress(OSError):
        pipe.send_bytes(data)
    _wait(pipe)  # the others may still need this one


def initialise(
    backend: str, store: dist.Store, index: int, world: int, timeout: float, *, device: int, one_machine: bool
) -> None:
    """The default process group of this rank. device: the number of its CUDA device. timeout: seconds of the case."""
    cuda = None
    if backend == "nccl":
        if torch.cuda.device_count() <= device:
            raise UnsupportedCase(f"rank {index} needs CUDA device {device}, there are {torch.cuda.device_count()}")
        cuda = torch.device("cuda", device)
        torch.cuda.set_device(cuda)
    if one_machine and sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # else gloo wants the host's name resolved
    limit = datetime.timedelta(seconds=timeout + 60)  # the launcher's own limit comes first, and says more
    dist.init_process_group(backend, store=store, rank=index, world_size=world, timeout=limit, device_id=cuda)


def _supervise(
    ranks: Sequence[_Process], board: Board, due: float, timeout: float, on_place: Callable[[str], None]
) -> None:
    """Return when every rank is done; raise for the first that is not going to be."""
    seen, since = [board.read(index) for index in range(len(ranks))], time.monotonic()
    while any(each.end is None for each in ranks):
        _collect(ranks, _POLL)
        if any(each.end is not None and each.end[0] != "done" for each in ranks):
            _collect(ranks, _GRACE, all_of_it=True)
            raise _failure(ranks, board)
        now, states = time.monotonic(), [board.read(index) for index in range(len(ranks))]
        if states != seen:
            seen, since = states, now
            on_place("; ".join(f"rank {index}: {state.place}" for index, state in enumerate(states)))
        waiting = [index for index, each in enumerate(ranks) if each.end is None]
        if waiting and all(states[index].inside for index in waiting) and now - since > _STUCK:
            raise _hung(ranks, states, waiting, f"no rank moved for {_STUCK:g} s")
        if waiting and now > due:
            raise _hung(ranks, states, waiting, f"no result within {timeout:g} s")


def _collect(ranks: Sequence[_Process], seconds: float, *, all_of_it: bool = False) -> None:
    """Take what ranks sent, and notice those that died, within ``seconds`` or as soon as there is something."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        open_ranks = [each for each in ranks if each.end is None]
        ready = wait([item for each in open_ranks for item in (each.pipe, each.process.sentinel)], timeout=left)
        for each in open_ranks:
            if each.pipe in ready or each.process.sentinel in ready:
                each.end = _ended(each)
        if not open_ranks or (ready and not all_of_it):
            return


def _ended(each: _Process) -> tuple[str, Any]:
    try:
        if each.pipe.poll():
            return pickle.loads(each.pipe.recv_bytes())
    except (EOFError, OSError):
        pass
    each.process.join(timeout=5)
    return "died", death(each.process.exitcode)


def _failure(ranks: Sequence[_Process], board: Board) -> ConformanceError:
    """The error of the rank that failed first: a collective that breaks is the fault of a rank that left."""

    def order(index: int) -> tuple[int, int]:
        kind = ranks[index].end
        assert kind is not None
        return (0 if kind[0] == "died" else 1 if not board.read(index).inside else 2, index)

    failed = sorted((i for i, each in enumerate(ranks) if each.end and each.end[0] != "done"), key=order)
    index, (kind, what) = failed[0], ranks[failed[0]].end or ("died", "")
    if isinstance(what, ConformanceError):
        return what
    also = f" (then rank {', '.join(map(str, sorted(failed[1:])))} failed too)" if failed[1:] else ""
    said = f"raised {what}" if kind == "raised" else f"died: {what}"
    return RankFailed(f"rank {index} of {len(ranks)} {said}, {board.read(index)}{also}")


def _hung(ranks: Sequence[_Process], states: list[State], waiting: list[int], why: str) -> RankFailed:
    for index in waiting:
        with contextlib.suppress(ProcessLookupError, TypeError):
            os.kill(ranks[index].process.pid, signal.SIGUSR1)  # its stack, into the log
    time.sleep(_GRACE)
    outside = [index for index in waiting if not states[index].inside]
    first = outside or waiting
    parts = [f"rank {index} of {len(ranks)} hangs {states[index]}" for index in first]
    parts += [f"rank {index} is {states[index]}" for index in waiting if index not in first]
    parts += [f"rank {index} has returned" for index in range(len(ranks)) if index not in waiting]
    return RankFailed(f"{why}: {'; '.join(parts)}")


def _value(each: _Process) -> Any:
    assert each.end is not None
    return each.end[1]


def _kill(guard: _Process, started: Sequence[_Process]) -> None:
    """End every rank and whatever they started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(guard.process.pid, signal.SIGKILL)
    for each in (guard, *started):
        with contextlib.suppress(ProcessLookupError):
            os.kill(each.process.pid, signal.SIGKILL)  # it may not be in the group yet
        each.process.join()
        each.pipe.close()
