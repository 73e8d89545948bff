"""A run whose ranks are there already, as torchrun starts them: every process walks the same cases.

Rank 0 prepares, runs the one-device reference, judges and reports. The processes themselves compute nothing: for every
case each starts a child of its own, which joins a process group of that case. So a rank that raises, dies or hangs ends
its case on all ranks, and the next case starts afresh.
"""

from __future__ import annotations

import os
import pickle
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conformance.errors import ConformanceError, UnsupportedCase, bad_field
from conformance.job import Job
from conformance.pool import Outcome, Task, run_tasks, warmed
from conformance.results import CaseResult, unjudged
from conformance.runner import Options, clear_results, results_of, saved_results
from conformance.verdicts import Verdict
from conformance.worker import run_attached, write_result

if TYPE_CHECKING:
    import torch.distributed as dist

_POLL = 0.2  # seconds between looks at the other ranks
_WARM = 600.0  # seconds for the imports of a rank
_LATE = 60.0  # seconds that a rank may be behind the others beyond a case's time limit


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a process stands among those that were started together."""

    rank: int
    world: int
    local: int
    host: str
    port: int


def here() -> Place | None:
    """The place that the environment names, as torchrun sets it; None in a process that was started alone.

    InputError when it names a world and not everything that is needed with it.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return None
    found = {}
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_PORT"):
        text = os.environ.get(name)
        if text is None or not text.isdecimal():
            raise bad_field("environment", name, text, "a whole number, as torchrun sets it")
        found[name] = int(text)
    return Place(
        rank=found["RANK"],
        world=found["WORLD_SIZE"],
        local=found["LOCAL_RANK"],
        host=os.environ.get("MASTER_ADDR", "127.0.0.1"),
        port=found["MASTER_PORT"],
    )


def meet() -> dist.Store:
    """The store that all processes of the launch share."""
    from torch.distributed import PrefixStore, rendezvous

    store, _, _ = next(iter(rendezvous("env://")))
    return PrefixStore("conformance", store)


@contextmanager
def telling(store: dist.Store) -> Iterator[None]:
    """Rank 0 inside: when it cannot even begin, the others hear that there is nothing to do."""
    try:
        yield
    finally:
        if not store.check(["jobs"]):
            _put(store, "jobs", None)


def lead(
    place: Place, store: dist.Store, jobs: Sequence[Job], options: Options, on_place: Callable[[str, str], None]
) -> Iterator[CaseResult]:
    """Rank 0: tell the other ranks what there is to do, and yield one result a case and gate; saved ones first."""
    saved = {job.case.id: found for job in jobs if options.resume and (found := saved_results(job))}
    for job in jobs:
        if job.case.id not in saved:
            clear_results(job)
    todo = [job for job in jobs if job.case.id not in saved and job.case.layout.world == place.world]
    _put(store, "jobs", todo)
    for found in saved.values():
        yield from found
    for job in jobs:
        if job.case.id not in saved and job not in todo:
            yield from _of_other_ranks(job, place)
    for rank in range(1, place.world if todo else 1):
        _get(store, f"warm/{rank}")
    for number, job in enumerate(todo):
        outcome = _take_part(number, job, options, place, store, on_place)
        found = _results(number, job, outcome, options, place, store)
        _put(store, f"{number}/judged", True)
        yield from found


def follow(options: Options, place: Place, store: dist.Store) -> None:
    """The other ranks: take part in every case that rank 0 names."""
    warm = Task(key="warm", target=warmed, argument=None, timeout=_WARM, log=Path(os.devnull))
    next(run_tasks([warm], jobs=1))  # imports are no part of the first case's time
    _put(store, f"warm/{place.rank}", True)
    jobs = _get(store, "jobs")
    for number, job in enumerate(jobs or ()):
        _take_part(number, job, options, place, store, lambda key, where: None)
        _get(store, f"{number}/judged")


def _put(store: dist.Store, key: str, value: Any) -> None:
    store.set(key, pickle.dumps(value).hex())


def _get(store: dist.Store, key: str) -> Any:
    """What another rank puts there, however long that takes: where it fails, the launcher ends us all."""
    while not store.check([key]):
        time.sleep(_POLL)
    return pickle.loads(bytes.fromhex(store.get(key).decode()))


def _of_other_ranks(job: Job, place: Place) -> tuple[CaseResult, ...]:
    layout = job.case.layout
    return _unsupported(job, f"layout {layout.name!r} needs {layout.world} ranks, and {place.world} were started")


def _unsupported(job: Job, why: str) -> tuple[CaseResult, ...]:
    for gate in job.gates:
        write_result(gate, unjudged(job.case, gate.gate, Verdict.UNSUPPORTED, f"engine: {why}", seconds={}))
    return results_of(job, Outcome(key=job.case.id, kind="done", value=None, message="", seconds=0.0))


def _take_part(
    number: int,
    job: Job,
    options: Options,
    place: Place,
    store: dist.Store,
    on_place: Callable[[str, str], None],
) -> Outcome:
    """This rank's child for a case; how it ended is told to the others, and ends theirs if it failed."""
    name = "log.txt" if place.rank == 0 else f"log-rank-{place.rank}.txt"
    task = Task(
        key=job.case.id,
        target=run_attached,
        argument=(job, place, number),
        timeout=options.timeout,
        log=Path(job.out) / job.folder / name,
    )
    failed = f"{number}/failed"

    def stop() -> str:
        return "ended with the others" if store.check([failed]) else ""

    outcome = next(run_tasks([task], jobs=1, on_place=on_place, stop=stop))
    if outcome.kind != "done":
        print(f"rank {place.rank} of {place.world}, {job.case.id}: {outcome.message}", file=sys.stderr, flush=True)
        _put(store, failed, True)
    value = outcome.value if isinstance(outcome.value, ConformanceError) else None
    _put(store, f"{number}/end/{place.rank}", (outcome.kind, outcome.message, value))
    return outcome


def _results(
    number: int, job: Job, outcome: Outcome, options: Options, place: Place, store: dist.Store
) -> tuple[CaseResult, ...]:
    """Rank 0's results, or what became of the rank that failed first."""
    ends: dict[int, tuple[str, str, Any]] = {}
    limit = time.monotonic() + options.timeout + _LATE
    for rank in range(place.world):
        key = f"{number}/end/{rank}"
        while not store.check([key]) and time.monotonic() < limit:
            time.sleep(_POLL)
        ends[rank] = _get(store, key) if store.check([key]) else ("timeout", "was not heard of again", None)
    failed = sorted((rank for rank in ends if ends[rank][0] != "done"), key=lambda rank: (_blame(ends[rank]), rank))
    if not failed:
        return results_of(job, outcome)
    first = ends[failed[0]]
    if isinstance(first[2], UnsupportedCase):
        return _unsupported(job, str(first[2]))
    said = [f"rank {rank} of {place.world}: {ends[rank][1]}" for rank in failed if ends[rank][0] != "stopped"]
    message = "; ".join(said)
    return results_of(job, Outcome(key=outcome.key, kind="crash", value=None, message=message, seconds=outcome.seconds))


def _blame(end: tuple[str, str, Any]) -> int:
    """Lower for what rather came first: a collective that breaks or waits is the fault of a rank that is not in it."""
    kind, message, _ = end
    if kind == "stopped":
        return 3
    return 0 if kind == "crash" else 2 if "waiting in" in message else 1
