"""Isolated tasks: each in a process of its own, forked from one server that has already imported torch.

A task that raises, crashes, hangs or is killed ends alone: the others go on. Importing torch, diffusers and
transformers takes seconds, forking takes milliseconds, so the imports are paid once a run and the isolation
is nearly free. The server only imports; it never computes, so its children start with untouched thread pools
and no CUDA context. A child leads a process group of its own and dies with the process that asked for it.
"""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from conformance.errors import ConformanceError

Report = Callable[[str], None]
_POLL = 0.2  # seconds between questions whether to stop
_GRACE = 0.5  # seconds between asking a hung child for its stack and killing it


@dataclass(frozen=True, kw_only=True)
class Task:
    """``target(argument, report)`` in a child process; ``report`` tells the parent where the child is.

    timeout: seconds. log: file that takes the child's standard output and error. width: how many tasks it counts as:
    the processes that it starts for itself.
    """

    key: str
    target: Callable[[Any, Report], Any]
    argument: Any
    timeout: float
    log: Path
    width: int = 1


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a task ended. kind: ``done`` (``value`` is its result), ``error`` (it raised; ``value`` is the
    exception), ``crash`` (the process died), ``timeout`` or ``stopped``; all but the first explain themselves in
    ``message``.
    """

    key: str
    kind: str
    value: Any
    message: str
    seconds: float


@dataclass
class _Child:
    task: Task
    process: Any
    pipe: Connection
    started: float
    place: str = "starting"
    answer: tuple[str, Any] | None = field(default=None)


def context() -> Any:
    """The multiprocessing context whose server has the heavy imports done."""
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(["conformance.preload"])
    return made


def _die_with_parent(pipe: Connection) -> None:
    """The parent never writes: a readable pipe is a closed one, and then nobody waits for this task."""
    with contextlib.suppress(EOFError, OSError):
        pipe.recv_bytes()
    os.killpg(0, signal.SIGKILL)


def _child_main(task: Task, pipe: Connection) -> None:
    os.setsid()
    task.log.parent.mkdir(parents=True, exist_ok=True)
    log = os.open(task.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    # the interpreter's own objects may be bound to other descriptors (a test runner's capture)
    sys.stdout = open(1, "w", buffering=1, closefd=False, errors="backslashreplace")  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False, errors="backslashreplace")  # noqa: SIM115
    faulthandler.enable(2)
    faulthandler.register(signal.SIGUSR1, file=2)
    threading.Thread(target=_die_with_parent, args=(pipe,), daemon=True).start()
    lock = threading.Lock()

    def send(kind: str, value: Any) -> None:
        with lock:
            pipe.send((kind, value))

    try:
        value = task.target(task.argument, lambda place: send("place", place))
    except BaseException as error:
        traceback.print_exc()
        # classes of others may not survive the pipe
        known = isinstance(error, ConformanceError) and type(error).__module__ == ConformanceError.__module__
        send("error", error if known else f"{type(error).__name__}: {str(error).strip() or 'no message'}")
    else:
        send("done", value)


def warmed(argument: Any, report: Report) -> None:
    """A target that does nothing: its child is there once the server has done its imports."""


def _start(mp: Any, task: Task) -> _Child:
    mine, theirs = mp.Pipe()
    process = mp.Process(target=_child_main, args=(task, theirs), daemon=False, name=task.key)
    process.start()
    theirs.close()
    return _Child(task=task, process=process, pipe=mine, started=time.monotonic())


def _kill(child: _Child) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.process.pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child.process.pid, signal.SIGKILL)  # it may not lead its group yet
    child.process.join()
    child.pipe.close()


def _drain(child: _Child, on_place: Callable[[str, str], None]) -> None:
    try:
        while child.pipe.poll():
            kind, value = child.pipe.recv()
            if kind == "place":
                child.place = value
                on_place(child.task.key, value)
            else:
                child.answer = (kind, value)
    except (EOFError, OSError):
        pass


def death(code: int | None) -> str:
    """How a process ended that should not have."""
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    return f"exited with code {code}"


def _outcome(child: _Child, now: float) -> Outcome:
    key, seconds = child.task.key, now - child.started
    if child.answer is None:
        message = f"the process {death(child.process.exitcode)} at: {child.place}"
        return Outcome(key=key, kind="crash", value=None, message=message, seconds=seconds)
    kind, value = child.answer
    return Outcome(key=key, kind=kind, value=value, message=str(value) if kind == "error" else "", seconds=seconds)


def _width(running: Sequence[_Child]) -> int:
    return sum(child.task.width for child in running)


def run_tasks(
    tasks: Sequence[Task],
    *,
    jobs: int,
    on_place: Callable[[str, str], None] = lambda key, place: None,
    stop: Callable[[], str] | None = None,
) -> Iterator[Outcome]:
    """Run tasks, as many as ``jobs`` holds by their widths, or one that is wider, and yield outcomes as they come.

    Closing the iterator kills what runs. stop: asked several times a second; a text ends what runs, for that reason.
    """
    mp = context()
    pending = list(reversed(tasks))
    running: list[_Child] = []
    try:
        while pending or running:
            while pending and (not running or _width(running) + pending[-1].width <= jobs):
                running.append(_start(mp, pending.pop()))
            due = min(child.started + child.task.timeout for child in running)
            waits: list[Any] = [child.pipe for child in running] + [child.process.sentinel for child in running]
            left = max(0.0, due - time.monotonic())
            wait(waits, timeout=left if stop is None else min(left, _POLL))
            reason = "" if stop is None else stop()
            for child in list(running):
                _drain(child, on_place)
                now = time.monotonic()
                if child.answer is not None or not child.process.is_alive():
                    child.process.join(timeout=10)
                    _drain(child, on_place)
                    outcome = _outcome(child, now)
                elif now - child.started >= child.task.timeout:
                    os.kill(child.process.pid, signal.SIGUSR1)
                    time.sleep(_GRACE)
                    _drain(child, on_place)
                    message = f"no result within {child.task.timeout:g} s; last seen at: {child.place}"
                    outcome = Outcome(
                        key=child.task.key, kind="timeout", value=None, message=message, seconds=now - child.started
                    )
                elif reason:
                    message = f"{reason}; last seen at: {child.place}"
                    outcome = Outcome(
                        key=child.task.key, kind="stopped", value=None, message=message, seconds=now - child.started
                    )
                else:
                    continue
                running.remove(child)
                _kill(child)
                yield outcome
    finally:
        for child in running:
            _kill(child)
