"""A run: jobs for the chosen cases, isolated, resumable, written as they come, reported at the end."""

from __future__ import annotations

import datetime
import fcntl
import hashlib
import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import thresholds
from conformance import environment
from conformance.case import Case
from conformance.errors import InputError
from conformance.job import ENGINE, LIVE, REFERENCES, SINGLE, STORED, Job, references_of
from conformance.jsonio import digest, read_json, write_json
from conformance.ledger import NONE
from conformance.ledger import load as load_ledger
from conformance.pool import Outcome, Task, run_tasks
from conformance.preparation import prepare
from conformance.results import CaseResult, Results, case_from_dict, unjudged
from conformance.source import Source
from conformance.verdicts import Verdict
from conformance.worker import run_case, write_result

MARKER = "run.json"
REPORT_FILES = ("index.html", "results.json", "junit.xml", "summary.md", "gaps.json", "gaps.patch")
_FETCHING = 86_400.0  # seconds at least for a checkpoint that may have to be downloaded, unpacked and hashed
_PACKAGES = ("conformance", "engine", "kernels", "reference_impl")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a run; the command line and the pytest plugin fill them (see ``conformance run --help``).

    further: references of more gates. ledger: a gap ledger's path, ``none``, or None: the shipped one, where it is
    about what runs.
    """

    out: Path
    engine: str = ENGINE
    reference: str = LIVE
    further: tuple[str, ...] = ()
    checkpoint: Path | None = None
    text_encoder: Path | None = None
    upsampler: Path | None = None
    lora: Path | None = None
    device: str = "cpu"
    threads: int = 1
    jobs: int | None = None
    timeout: float = 300.0
    thresholds: Path | None = None
    store: Path | None = None
    ledger: str | None = None
    oracle: bool = False
    clip: str | None = None
    depth: str = "block"
    resume: bool = False
    shard: str | None = None

    @property
    def source(self) -> Source | None:
        """The checkpoint that was asked for; None for the project's own. InputError for parts of no checkpoint."""
        parts = {name: getattr(self, name) for name in ("text_encoder", "upsampler", "lora")}
        given = {name: str(path) for name, path in parts.items() if path is not None}
        if self.checkpoint is not None:
            return Source(checkpoint=str(self.checkpoint), **given)
        if given:
            raise InputError(f"--{next(iter(given)).replace('_', '-')}: goes with --checkpoint, an official file")
        return None

    @property
    def references(self) -> tuple[str, ...]:
        return self.reference, *self.further

    @property
    def gaps(self) -> str | None:
        """The ledger for a job: the shipped gaps are those of the shipped engine, tiny checkpoints and references."""
        if self.ledger is not None:
            return NONE if self.ledger == NONE else str(Path(self.ledger).resolve())
        known = set(self.references) <= {LIVE, SINGLE, *STORED, *REFERENCES}
        return None if self.engine == ENGINE and self.checkpoint is None and known else NONE

    @property
    def workers(self) -> int:
        """Cases at once: as many as the cores carry on a CPU, one on a GPU."""
        if self.jobs is not None:
            return self.jobs
        return 1 if self.device != "cpu" else max(1, len(os.sched_getaffinity(0)) // self.threads)


def code_digest() -> str:
    """sha256 over the source of everything that produces or judges output."""
    root = Path(__file__).parent.parent
    hasher = hashlib.sha256()
    for package in _PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            hasher.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return hasher.hexdigest()


def _store_digest(options: Options) -> str:
    """sha256 over the manifests that a stored reference may come from; empty for a live one."""
    if not set(options.references) & set(STORED):
        return ""
    if options.store is not None and not options.store.exists():
        raise InputError(f"--store {options.store}: no such folder")
    from ground_truth import Store  # it imports torch, which only the workers need otherwise

    return digest([path.read_text() for path in Store(options.store).paths()])


def _ledger_digest(options: Options) -> str:
    """sha256 of the gap ledger of this run; empty without one. InputError when it is missing or malformed."""
    gaps = options.gaps
    if gaps == NONE:
        return ""
    found = load_ledger(None if gaps is None else Path(gaps), environment.cohort_device(options.device))
    return "" if found is None else digest(found.dump())


def _out(path: Path | None) -> str | None:
    return None if path is None else str(path.resolve())


def prepare_checkpoints(
    models: Mapping[str, tuple[str, ...]], options: Options, on_place: Callable[[str], None] = lambda place: None
) -> dict[str, tuple[str, str]]:
    """Folder and digest of every model's checkpoint, built, checked and hashed in a process of its own.

    models: and the quantizations that their cases ask for. The run's generators and its CLIP model are loaded there
    too. ``on_place`` is told where it is. InputError when any of them is unusable.
    """
    live: dict[str, None] = {}
    for reference in options.references:
        if reference == LIVE:
            live |= dict.fromkeys(REFERENCES.values())
        elif reference not in (*STORED, SINGLE):
            live[REFERENCES.get(reference, reference)] = None
    argument = (options.source, dict(models), (options.engine, *live), options.clip)
    timeout = options.timeout if options.checkpoint is None else max(options.timeout, _FETCHING)
    log = options.out / "prepare.txt"
    task = Task(key="prepare", target=prepare, argument=argument, timeout=timeout, log=log)
    outcome = next(run_tasks([task], jobs=1, on_place=lambda key, place: on_place(place)))
    if outcome.kind != "done":
        if isinstance(outcome.value, InputError):
            raise outcome.value
        raise InputError(f"preparing the run: {outcome.message} (log: {log})")
    return outcome.value


def make_jobs(
    cases: Sequence[Case], options: Options, on_place: Callable[[str], None] = lambda place: None
) -> list[Job]:
    """One job a case. InputError when two references are of one gate, or thresholds, ledger, store or a checkpoint are
    missing or unusable.

    on_place: told where the preparation of the checkpoints is.
    """
    against = {case.id: references_of(case, options.references) for case in cases}
    limits = thresholds.load(options.thresholds, device=environment.cohort_device(options.device)).digest
    store, ledger = _store_digest(options), _ledger_digest(options)
    models: dict[str, tuple[str, ...]] = {}
    for case in cases:
        models[case.model] = tuple(dict.fromkeys((*models.get(case.model, ()), case.quantization)))
    checkpoints = prepare_checkpoints(models, options, on_place)
    versions = tuple(sorted(environment.versions().items()))
    code = code_digest()
    return [
        Job(
            case=case,
            out=str(options.out.resolve()),
            engine=options.engine,
            reference=against[case.id][0],
            further=against[case.id][1:],
            checkpoint=checkpoints[case.model][0],
            checkpoint_digest=checkpoints[case.model][1],
            device=options.device,
            threads=options.threads,
            timeout=options.timeout,
            thresholds=_out(options.thresholds),
            thresholds_digest=limits,
            store=_out(options.store),
            store_digest=store,
            ledger=options.gaps,
            ledger_digest=ledger,
            oracle=options.oracle,
            clip=options.clip,
            depth=options.depth,
            versions=versions,
            code=code,
        )
        for case in cases
    ]


@contextmanager
def open_out(out: Path, *, resume: bool) -> Iterator[None]:
    """Make ``out`` ready and keep it for this run while the context lasts.

    Without ``resume`` what an earlier run left there goes, its report in any case: a run that is killed leaves no
    other run's results behind. InputError when ``out`` holds something else than a run (it is never touched), cannot
    be written, or another run is writing to it.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: is a file; expected a folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
        handle = os.open(out, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written ({error.strerror})") from None
    try:
        with suppress(OSError):  # not every file system has locks
            _lock(handle, out)
        _clear(out, resume=resume)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, out: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(f"--out {out}: another run is writing there; wait for it or choose another folder") from None


def _clear(out: Path, *, resume: bool) -> None:
    ours = (out / MARKER).is_file()
    if resume and not ours:
        raise InputError(f"--resume: {out} holds no run (no {MARKER}); start one without --resume")
    if any(out.iterdir()) and not ours:
        raise InputError(f"--out {out}: is not empty and holds no run; choose another folder")
    try:
        write_json(out / MARKER, {"schema": "conformance.run/1", "command": shlex.join(sys.argv)})
        for name in REPORT_FILES:
            (out / name).unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written ({error.strerror})") from None
    if ours and not resume:
        shutil.rmtree(out / "cases", ignore_errors=True)


def saved_results(job: Job) -> tuple[CaseResult, ...]:
    """The finished results of exactly this job, one a gate, or none. Infrastructure errors are worth another try."""
    found = tuple(result for gate in job.gates if (result := _saved(gate)) is not None)
    return found if len(found) == len(job.gates) else ()


def _saved(gate: Job) -> CaseResult | None:
    path = Path(gate.out) / gate.folder / "result.json"
    try:
        result = case_from_dict(read_json(path), str(path))
    except InputError:
        return None
    return result if result.job == gate.digest and result.verdict != Verdict.INFRA_ERROR else None


def clear_results(job: Job) -> None:
    for gate in job.gates:
        shutil.rmtree(Path(gate.out) / gate.folder, ignore_errors=True)


def results_of(job: Job, outcome: Outcome) -> tuple[CaseResult, ...]:
    """What the child of a case wrote, one result a gate, or that it could not.

    A gate that was judged before the child broke off keeps its result.
    """
    return tuple(_result_of(gate, outcome, job.folder) for gate in job.gates)


def _result_of(gate: Job, outcome: Outcome, folder: str) -> CaseResult:
    path = Path(gate.out) / gate.folder / "result.json"
    reason = outcome.message if outcome.kind != "timeout" else f"time limit: {outcome.message}"
    if outcome.kind == "done":
        try:
            return case_from_dict(read_json(path), str(path))
        except InputError as error:
            reason = f"the result cannot be read back: {error}"
    elif (judged := _saved(gate)) is not None:
        return judged
    result = unjudged(gate.case, gate.gate, Verdict.INFRA_ERROR, reason, seconds={"total": outcome.seconds})
    write_result(gate, result, log=f"{folder}/log.txt")
    return case_from_dict(read_json(path), str(path))


def run_jobs(
    jobs: Sequence[Job],
    options: Options,
    on_place: Callable[[str, str], None] = lambda key, place: None,
    execute: Callable[..., Iterator[Outcome]] = run_tasks,
) -> Iterator[CaseResult]:
    """Yield one result a case and gate, as they come; with ``resume``, saved ones first.

    execute: ``run_tasks``, or what does the same elsewhere.
    """
    todo: dict[str, Job] = {}
    for job in jobs:
        saved = saved_results(job) if options.resume else ()
        yield from saved
        if not saved:
            todo[job.case.id] = job
    tasks = []
    for key, job in todo.items():
        clear_results(job)
        log = Path(job.out) / job.folder / "log.txt"
        width = job.case.layout.world
        tasks.append(Task(key=key, target=run_case, argument=job, timeout=options.timeout, log=log, width=width))
    for outcome in execute(tasks, jobs=options.workers, on_place=on_place):
        yield from results_of(todo[outcome.key], outcome)


def collect(
    cases: Sequence[Case], results: Sequence[CaseResult], options: Options, started: float, command: str
) -> Results:
    """The run as one value, cases in the order they were asked for, each with its gates."""
    by_id: dict[str, list[CaseResult]] = {case.id: [] for case in cases}
    for result in results:
        by_id[result.id].append(result)
    finished = time.time()

    def stamp(moment: float) -> str:
        return datetime.datetime.fromtimestamp(moment, datetime.UTC).isoformat(timespec="seconds")

    run = {
        "started": stamp(started),
        "finished": stamp(finished),
        "seconds": round(finished - started, 3),
        "command": command,
        "shard": options.shard,
        "ledger": environment.versions(),
    }
    return Results(run=run, cases=tuple(result for case in cases for result in by_id[case.id]))
