"""What runs on a node of a cluster, without knowing Ray: a look at what the node has, and isolated cases."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from conformance import environment
from conformance.pool import Outcome, Task, run_tasks, warmed
from conformance.runner import code_digest

_WARM = 600.0  # seconds for the imports


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What every node must have. token: a file of this run in ``--out``. paths: files and folders that cases read.
    code, versions: as in ``Job``."""

    token: str
    paths: tuple[str, ...]
    code: str
    versions: tuple[tuple[str, str], ...]


def lacks(expected: Expected) -> str:
    """What this node does not have of what cases need, as a sentence that names it; empty when nothing is missing."""
    name, out = socket.gethostname(), Path(expected.token).parent
    if not Path(expected.token).is_file():
        return f"node {name}: --out {out} is not the folder that this run writes to; expected one that all nodes share"
    try:
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        return f"node {name}: --out {out} cannot be written ({error.strerror})"
    for path in expected.paths:
        if not Path(path).exists():
            return f"node {name}: {path} does not exist; expected a path that all nodes share"
    mine = environment.versions()
    for package, version in expected.versions:
        if mine.get(package) != version:
            return f"node {name}: {package} is {mine.get(package)}; expected {version}, as where the run was started"
    if code_digest() != expected.code:
        return f"node {name}: has other code of the harness or the engine than where the run was started"
    return ""


def run(task: Task, expected: Expected) -> Outcome:
    """The task in a process of its own, under its time limit; logs and results go where the task says."""
    if missing := lacks(expected):
        return Outcome(key=task.key, kind="error", value=None, message=missing, seconds=0.0)
    _warm()
    return next(run_tasks([task], jobs=1))


@cache
def _warm() -> None:
    """Pay the imports once a worker process, in nobody's time limit."""
    # children would run the cluster's own main file, which imports all of it
    vars(sys.modules["__main__"]).pop("__file__", None)
    next(run_tasks([Task(key="warm", target=warmed, argument=None, timeout=_WARM, log=Path(os.devnull))], jobs=1))
