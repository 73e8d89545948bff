"""What runs inside an isolated process: generate both sides of a case, judge, write the result.

Everything heavy is imported here, inside functions; in a child of the pool it is imported already.
"""

from __future__ import annotations

import gc
import importlib
import os
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from conformance.case import Layout
from conformance.errors import (
    ConformanceError,
    GeneratorFailed,
    InputError,
    RanksDisagree,
    ReferenceMissing,
    ReferenceStale,
    UnsupportedCase,
)
from conformance.job import ENGINE, LIVE, REFERENCES, SINGLE, STORED, Job, against, reference_of, stored_as
from conformance.jsonio import write_json
from conformance.pool import Report
from conformance.results import CaseResult, unjudged
from conformance.verdicts import Verdict

if TYPE_CHECKING:
    from conformance.attached import Place
    from conformance.generator import Generator, Sample
    from conformance.ranked import Part
    from conformance.ranks import Rank


def factory(spec: str) -> Callable[[Path, str], Generator]:
    """The ``build(checkpoint, device)`` that ``module:name`` names, also in the current folder. InputError when there
    is none."""
    module, colon, name = spec.partition(":")
    if not colon:
        raise InputError(f"generator {spec!r}: expected 'module:factory'")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a console script does not look there, and a module beside the user is meant
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:  # a module can raise anything while it is imported
        raise InputError(f"generator {spec!r}: cannot be imported ({type(error).__name__}: {error})") from None
    if not callable(found):
        raise InputError(f"generator {spec!r}: is not callable")
    return found


def generate(job: Job, spec: str, side: str, report: Report) -> Sample:
    """Run one generator on the job's case, on the ranks of its layout; ledger and trace are filled in.

    InputError when it returns no Sample, RankFailed and RanksDisagree from ranks.
    """
    if job.case.layout.world == 1:
        return _generate(job, spec, side, report, job.device)
    from conformance import ranked, ranks

    limit = max(0.8 * job.timeout, job.timeout - 2.0)  # the ranks' own errors come before the case's time limit
    parts = ranks.run(
        job.case.layout.world,
        generate_on_rank,
        job,
        spec,
        side,
        backend=backend_of(job.device),
        timeout=limit,
        threads=job.threads,
        on_place=report,
    )
    return ranked.merge(parts)


def backend_of(device: str) -> str:
    """The torch.distributed backend of ranks on this kind of device."""
    return "gloo" if device == "cpu" else "nccl"


def generate_on_rank(rank: Rank, job: Job, spec: str, side: str) -> Part:
    """What one rank of the case's layout does, inside the process group."""
    from conformance import ranked

    device = job.device if job.device == "cpu" else f"cuda:{rank.device}"
    sample = _generate(job, spec, side, rank.report, device)
    layout = job.case.layout
    sample.ledger |= {"layout": layout.name, "ranks": layout.world, "backend": backend_of(job.device)}
    sample.ledger["exchanges"] = dict(rank.exchanges)
    return ranked.part(rank, sample)


def _generate(job: Job, spec: str, side: str, report: Report, device: str) -> Sample:
    import torch

    from conformance import environment
    from conformance.generator import Probe
    from conformance.sample_check import check_sample

    report(f"{side}, loading")
    torch.set_num_threads(job.threads)
    environment.settle()

    def on_tap(name: str) -> None:
        if "/block." not in name:  # hundreds of them, and a hang is placed well enough without
            report(f"{side}, after {name}")

    probe = Probe(depth=job.depth, on_tap=on_tap)
    generator = factory(spec)(Path(job.checkpoint), device)
    report(f"{side}, generating")
    sample = generator.generate(job.case, probe)
    check_sample(sample)
    sample.trace, sample.tensors = probe.trace, probe.tensors
    sample.ledger = {**sample.ledger, **environment.ledger(device)}  # what a generator says of itself hides none of it
    gc.collect()
    return sample


def _reference(job: Job, report: Report) -> Sample:
    from conformance import environment

    if job.reference not in STORED:
        alone = replace(job, case=replace(job.case, layout=Layout.single()))
        if job.reference == SINGLE:
            return generate(alone, job.engine, "reference", report)
        name = reference_of(job.case) if job.reference == LIVE else job.reference
        return generate(alone, REFERENCES.get(name, name), "reference", report)
    from conformance import checkpoint
    from ground_truth import Store

    report("reference, reading the store")
    store = Store(Path(job.store) if job.store else None)
    return store.get(
        stored_as(job),
        kind="self" if job.reference == "self" else reference_of(job.case),
        checkpoint=checkpoint.digests(Path(job.checkpoint), optional=checkpoint.needed(job.case.request)),
        ledger=environment.ledger(job.device),
    )


# Verdicts about a distance: there is one, and it is between the same inputs.
_APART = (Verdict.PASS, Verdict.FAIL, Verdict.CALIBRATION_NEEDED, Verdict.WAIVED)
_NO_SAMPLE: dict[type[ConformanceError], Verdict] = {
    UnsupportedCase: Verdict.UNSUPPORTED,
    ReferenceMissing: Verdict.NO_REFERENCE,
    ReferenceStale: Verdict.STALE_REFERENCE,
    RanksDisagree: Verdict.FAIL,
}


def run_case(job: Job, report: Report, produce: Callable[[], Sample] | None = None) -> str:
    """Generate once, then judge every gate and write its ``result.json``; returns the verdicts.

    Errors of either side become verdicts. produce: where the engine's sample comes from, if not from ``generate``.
    """
    started = time.monotonic()

    def engine() -> Sample:
        if job.reference == SINGLE and job.case.layout.world == 1:
            raise UnsupportedCase("the parallel gate compares several ranks with one device, and this layout is one")
        return produce() if produce else generate(job, job.engine, "engine", report)

    candidate = _attempt("engine", engine)
    spent = {"engine": time.monotonic() - started}
    verdicts: list[str] = []
    broken: GeneratorFailed | None = None
    for gate in sorted(job.gates, key=lambda gate: gate.reference not in STORED):  # what is quick and cannot crash
        try:
            result = _gate(gate, candidate, dict(spent), report)
        except GeneratorFailed as error:
            broken = broken or error
            continue
        verdicts.append(write_result(gate, result, log=f"{job.folder}/log.txt"))
    if broken is not None:
        raise broken
    return " ".join(verdicts)


def _gate(job: Job, candidate: Sample | _NoSample, seconds: dict[str, float], report: Report) -> CaseResult:
    """One gate of a case, judged. GeneratorFailed when the reference breaks off."""
    started = time.monotonic()
    reference = candidate
    if not isinstance(candidate, _NoSample):
        reference = _attempt("reference", lambda: _reference(job, report))
        seconds["reference"] = time.monotonic() - started
    for side in (candidate, reference):
        if isinstance(side, _NoSample):
            return unjudged(job.case, job.gate, side.verdict, side.reason, seconds=seconds)
    report("judging")
    return _judge(job, cast("Sample", candidate), cast("Sample", reference), seconds)


@dataclass(frozen=True)
class _NoSample:
    """Why a side has none: a matter of the case or of the store, not a failure."""

    verdict: Verdict
    reason: str


def _attempt(side: str, make: Callable[[], Sample]) -> Sample | _NoSample:
    try:
        return make()
    except tuple(_NO_SAMPLE) as error:
        return _NoSample(_NO_SAMPLE[type(error)], f"{side}: {error}")
    except ConformanceError as error:
        raise GeneratorFailed(f"{side} failed: {error}") from error
    except Exception as error:
        raise GeneratorFailed(f"{side} failed: {type(error).__name__}: {error}") from error


def run_attached(argument: tuple[Job, Place, int], report: Report) -> str:
    """One rank of a case among processes that were started together; rank 0 also judges and writes the result.

    argument: the job, this process's place and the number of the case in the run.
    """
    import torch.distributed as dist

    from conformance import joining, ranked

    job, place, number = argument
    backend = backend_of(job.device)
    with joining.joined(place, f"case/{number}", backend, job.timeout, job.threads, report) as me:

        def parts() -> list[Part] | None:
            return me.gather(generate_on_rank(me.rank, job, job.engine, "engine"))

        if place.rank > 0:
            me.told(parts)
            return "done"

        def produce() -> Sample:
            found = me.told(parts)
            assert found is not None
            dist.destroy_process_group()  # the reference runs alone
            return ranked.merge(found)

        return run_case(job, me.rank.report, produce)


def _judge(job: Job, candidate: Sample, reference: Sample, seconds: dict[str, float]) -> CaseResult:
    import thresholds
    from conformance import artifacts, environment, gates
    from conformance import ledger as gaps
    from conformance.metrics.clip import ClipScorer
    from ground_truth import saved

    started = time.monotonic()
    path = Path(job.thresholds) if job.thresholds else None
    limits = thresholds.load(path, device=environment.cohort_device(job.device))
    ledger = None
    if job.ledger != gaps.NONE:
        ledger = gaps.load(Path(job.ledger) if job.ledger else None, environment.cohort_device(job.device))
    result = gates.judge(
        job.case,
        job.gate,
        candidate,
        reference,
        thresholds=limits,
        clip=ClipScorer.load(job.clip),
        ledger=ledger,
    )
    seconds["judge"] = time.monotonic() - started
    if job.oracle and result.verdict in _APART:
        from conformance.oracle_truth import ask

        started = time.monotonic()
        found = ask(job.case, Path(job.checkpoint), candidate, reference)
        said = f"{result.reason}; oracle: {found.get('finding', 'no finding')}, {found['sentence']}"
        result = replace(result, oracle=found, reason=said)
        seconds["oracle"] = time.monotonic() - started
    report_started = time.monotonic()
    out = Path(job.out)
    frames = artifacts.write_frames(result.frames, candidate, reference, out, job.folder)
    artifacts.share_identical(out, frames)
    files = {
        **artifacts.write_sample(candidate, out, job.folder, "candidate"),
        **saved.write(candidate, out, job.folder),
        **artifacts.write_sample(reference, out, job.folder, "reference"),
    }
    seconds["files"] = time.monotonic() - report_started
    return replace(result, frames=frames, files=files, seconds=seconds)


def write_result(job: Job, result: CaseResult, *, log: str | None = None) -> str:
    """Complete a result with what the job knows and write it, atomically, to the folder of case and gate.

    log: the case's, where it is not in that folder.
    """
    from conformance import environment
    from conformance.overrides import origin

    own = Path(job.checkpoint).is_relative_to(environment.cache_root() / "tiny")
    picked, departures = origin(job.case)
    command = " ".join([f"conformance run '{picked}'", *map(shlex.quote, departures)])
    for flag, value, usual in (
        ("engine", job.engine, ENGINE),
        ("reference", job.reference, against(job.case, LIVE)),
        ("device", job.device, "cpu"),
        ("checkpoint", job.checkpoint, job.checkpoint if own else ""),
    ):
        if value != usual:
            command += f" --{flag} {shlex.quote(value)}"
    files = {**result.files, "log": log or f"{job.folder}/log.txt"}
    whole: dict[str, Any] = replace(result, files=files, command=command, job=job.digest).as_dict()
    write_json(Path(job.out) / job.folder / "result.json", whole)
    return str(result.verdict)


def build_ground_truth(argument: tuple[Job, str], report: Report) -> str:
    """Generate one side of a case and store it; returns the manifest's path. argument: the job and the reason."""
    from conformance import checkpoint
    from ground_truth import Store

    job, reason = argument
    spec = job.engine if job.reference == "self" else REFERENCES[job.reference]
    sample = generate(job, spec, job.reference, report)
    path = Store(Path(job.store) if job.store else None).put(
        stored_as(job),
        sample,
        kind=job.reference,
        generator=spec,
        checkpoint=checkpoint.digests(Path(job.checkpoint), optional=checkpoint.needed(job.case.request)),
        ledger=sample.ledger,
        reason=reason,
    )
    return str(path)
