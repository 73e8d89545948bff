"""Cases on a Ray cluster: each on a node that has as many devices free as the case has ranks.

Ray is an optional dependency and is imported here alone, inside functions.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conformance import cluster_node, pool
from conformance.errors import InputError
from conformance.job import Job
from conformance.ledger import NONE as NO_LEDGER
from conformance.pool import Outcome, Task
from conformance.results import CaseResult
from conformance.runner import Options, run_jobs

LOCAL = "local"
ATTEMPTS = 3  # of a case whose worker is lost each time
_ANSWER = 120.0  # seconds in which a node must show what it has
_CONNECT = 10.0  # seconds in which somebody must answer at the address
_JOIN = 60.0  # seconds in which it must turn out to be a cluster
_POLL = 1.0  # seconds between looks at the nodes
_LOCAL_STORE = 80_000_000  # bytes: what is sent is small
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    "RAY_enable_metrics_collection": "0",
}
_QUIETLY: dict[str, Any] = {"log_to_driver": False, "configure_logging": False, "logging_level": logging.ERROR}


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A cluster that this process has joined. device: ``CPU`` or ``GPU``. each: of them for one rank."""

    ray: Any
    device: str
    each: int

    def needs(self, task: Task) -> int:
        """Devices of one node that the task takes."""
        return task.width * self.each

    def nodes(self) -> dict[str, int]:
        """Devices of every live node that has some, by the node's id."""
        found = {
            node["NodeID"]: int(node["Resources"].get(self.device, 0)) for node in self.ray.nodes() if node["Alive"]
        }
        return {node: devices for node, devices in found.items() if devices}

    def remote(self, function: Callable[..., Any], devices: int, **more: Any) -> Any:
        """``function`` as a task of the cluster that takes so many devices; a lost one is not repeated."""
        amounts = {"num_cpus": devices} if self.device == "CPU" else {"num_cpus": 0, "num_gpus": devices}
        return self.ray.remote(function).options(**amounts, max_retries=0, **more)


@dataclass
class _Running:
    task: Task
    lost: list[str] = field(default_factory=list)  # how earlier attempts ended


@contextmanager
def joined(address: str, options: Options) -> Iterator[Cluster]:
    """Be a driver of the cluster at ``address`` (``HOST:PORT``), or of one on this machine for as long (``local``).

    InputError when Ray is not installed, when nobody answers there, or for ``--jobs`` beside an address.
    """
    ray = _imported()
    folder = tempfile.mkdtemp(prefix="ray-")
    try:
        if address == LOCAL:
            place: dict[str, Any] = {
                "num_cpus": options.workers * options.threads if options.device == "cpu" else None,
                "include_dashboard": False,
                "object_store_memory": _LOCAL_STORE,
                "_node_ip_address": "127.0.0.1",
                "_temp_dir": folder,
            }
        else:
            if options.jobs is not None:
                raise InputError(f"--jobs {options.jobs}: goes with --cluster local; at an address the devices decide")
            _check_answers(address)
            place = {}
        try:
            ray.init(address=address, **place, **_QUIETLY)
        except Exception as error:
            raise InputError(f"--cluster {address}: cannot be joined ({_line(error)})") from None
        gpus = options.device != "cpu"
        yield Cluster(ray=ray, device="GPU" if gpus else "CPU", each=1 if gpus else options.threads)
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def _imported() -> Any:
    os.environ.update({name: os.environ.get(name, value) for name, value in _QUIET.items()})
    try:
        import ray
    except ImportError as error:
        wanted = "pip install 'diffusion-conformance[cluster]'"
        raise InputError(f"--cluster: Ray cannot be imported ({error}); {wanted}") from None
    ray._private.worker._worker_logs_enabled = False  # it announces lost workers on standard output
    return ray


def _check_answers(address: str) -> None:
    """InputError unless a cluster that can be joined is there."""
    host, colon, port = address.rpartition(":")
    if not (colon and host and "/" not in host and port.isdecimal() and 0 < int(port) < 65536):
        raise InputError(f"--cluster {address}: expected 'local' or HOST:PORT, as ray start --head says it")
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT).close()
    except OSError as error:
        raise InputError(f"--cluster {address}: nobody answers there ({error.strerror or error})") from None
    trial = Task(key="join", target=_try, argument=address, timeout=_JOIN, log=Path(os.devnull))
    outcome = next(pool.run_tasks([trial], jobs=1))
    if outcome.kind != "done":
        said = f"no head of a Ray cluster within {_JOIN:g} s" if outcome.kind == "timeout" else outcome.message
        raise InputError(f"--cluster {address}: cannot be joined ({said})")


def _try(address: str, report: pool.Report) -> None:
    """Join and leave, in a process that can be ended: where no cluster is, Ray waits for minutes."""
    import ray

    ray.init(address=address, **_QUIETLY)
    ray.shutdown()


def lead(
    cluster: Cluster, jobs: Sequence[Job], options: Options, on_place: Callable[[str, str], None]
) -> Iterator[CaseResult]:
    """Yield one result a job as they come, saved ones first. InputError when a node lacks what the cases need."""
    token = options.out.resolve() / f".cluster-{uuid.uuid4().hex}"
    token.touch()
    try:
        expected = _expected(jobs, token)
        _check_nodes(cluster, expected)

        def execute(tasks: Sequence[Task], **_: Any) -> Iterator[Outcome]:
            return run_tasks(cluster, tasks, expected, on_place)

        yield from run_jobs(jobs, options, on_place, execute)
    finally:
        token.unlink(missing_ok=True)


def _expected(jobs: Sequence[Job], token: Path) -> cluster_node.Expected:
    given = (path for job in jobs for path in (job.checkpoint, job.thresholds, job.store, job.ledger))
    paths = dict.fromkeys(path for path in given if path not in (None, NO_LEDGER))
    first = jobs[0]
    return cluster_node.Expected(token=str(token), paths=tuple(paths), code=first.code, versions=first.versions)


def _check_nodes(cluster: Cluster, expected: cluster_node.Expected) -> None:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    asked = {}
    for node in cluster.nodes():
        there = NodeAffinitySchedulingStrategy(node_id=node, soft=False)
        asked[cluster.remote(cluster_node.lacks, 0, scheduling_strategy=there).remote(expected)] = node
    _, late = cluster.ray.wait(list(asked), num_returns=len(asked), timeout=_ANSWER) if asked else ([], [])
    if late:
        raise InputError(f"--cluster: node {asked[late[0]]} did not answer within {_ANSWER:g} s")
    for answer, node in asked.items():
        try:
            missing = cluster.ray.get(answer)
        except cluster.ray.exceptions.RayError as error:
            missing = f"node {node} cannot run cases ({_line(error)})"
        if missing:
            raise InputError(f"--cluster: {missing}")


def run_tasks(
    cluster: Cluster,
    tasks: Sequence[Task],
    expected: cluster_node.Expected,
    on_place: Callable[[str, str], None] = lambda key, place: None,
) -> Iterator[Outcome]:
    """``pool.run_tasks`` on the nodes: a task whose worker is lost is tried ``ATTEMPTS`` times.

    One that no live node is large enough for ends at once, of kind ``unplaced``.
    """
    running: dict[Any, _Running] = {}

    def start(one: _Running) -> None:
        devices = cluster.needs(one.task)
        running[cluster.remote(cluster_node.run, devices).remote(one.task, expected)] = one
        attempt = f", attempt {len(one.lost) + 1} of {ATTEMPTS}" if one.lost else ""
        on_place(one.task.key, f"on the cluster, {devices} {cluster.device}{attempt}")

    try:
        for task in tasks:
            start(_Running(task))
        while running:
            ready, _ = cluster.ray.wait(list(running), num_returns=1, timeout=_POLL)
            for answer in ready:
                one = running.pop(answer)
                outcome = _outcome(cluster, answer, one)
                if outcome is None:
                    start(one)
                else:
                    yield outcome
            largest = max(cluster.nodes().values(), default=0)
            for answer in [each for each, one in running.items() if cluster.needs(one.task) > largest]:
                cluster.ray.cancel(answer, force=True)
                yield _unplaced(cluster, running.pop(answer), largest)
    finally:
        for answer in running:
            cluster.ray.cancel(answer, force=True)


def _outcome(cluster: Cluster, answer: Any, one: _Running) -> Outcome | None:
    """How the task ended; None when its worker was lost and it is to be tried again."""
    errors = cluster.ray.exceptions
    try:
        return cluster.ray.get(answer)
    except errors.RayTaskError as error:  # of the harness on the node: the case's own come as outcomes
        return Outcome(key=one.task.key, kind="error", value=None, message=_line(error), seconds=0.0)
    except errors.RayError as error:
        one.lost.append(f"{type(error).__name__}: {_line(error)}")
    if len(one.lost) < ATTEMPTS:
        return None
    message = f"its worker on the cluster was lost in {ATTEMPTS} attempts; the last: {one.lost[-1]}"
    return Outcome(key=one.task.key, kind="crash", value=None, message=message, seconds=0.0)


def _unplaced(cluster: Cluster, one: _Running, largest: int) -> Outcome:
    message = f"needs {cluster.needs(one.task)} {cluster.device} on one node of the cluster; the largest has {largest}"
    if one.lost:
        message += f" (a worker was lost before: {one.lost[-1]})"
    return Outcome(key=one.task.key, kind="unplaced", value=None, message=message, seconds=0.0)


def _line(error: BaseException) -> str:
    """What an error says, in one line: of those of Ray the last, where the cause is."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
