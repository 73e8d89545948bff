"""``conformance calibrate``"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Collection
from pathlib import Path

from conformance import environment
from conformance.case import Case
from conformance.commands.output import check_writable, preparing, progress, write_json_option
from conformance.errors import InputError, bad_field
from conformance.matrix import all_cases, select
from conformance.pool import Task, run_tasks
from conformance.runner import Options, prepare_checkpoints
from conformance.verdicts import EXIT_INFRA, EXIT_OK, EXIT_UNJUDGED
from thresholds.floor import METRIC, MIN_SAMPLES
from thresholds.loader import SHIPPED, load, write
from thresholds.schema import Cohort, Entry

TIMEOUT = 1800.0  # seconds a case may take


def main(options: argparse.Namespace) -> int:
    if not options.owner.strip():
        raise bad_field("command line", "owner", options.owner, "who answers for these limits")
    if options.samples < MIN_SAMPLES:
        raise bad_field("command line", "samples", options.samples, f"at least {MIN_SAMPLES}")
    cases = select(all_cases(), options.cases, options.suite)
    several = [case.id for case in cases if case.layout.world > 1]
    if several:
        raise InputError(f"{several[0]}: runs on several ranks, which the parallel gate judges by bounds of its own")
    device = environment.cohort_device(options.device)
    path = options.thresholds or SHIPPED / f"{device.lower().replace(' ', '-')}.json"
    check_writable("--thresholds", path)
    kept = _others(path, device, {case.id for case in cases})
    made, failed = [], {}
    with tempfile.TemporaryDirectory(prefix="conformance-calibrate-") as scratch:
        tasks = _tasks(cases, options, Path(scratch))
        with progress(len(tasks), "cases") as (done, place):
            for outcome in run_tasks(tasks, jobs=_jobs(options), on_place=place):
                if outcome.kind != "done":
                    failed[outcome.key] = outcome.message
                    done(f"FAILED {outcome.key}: {outcome.message}")
                    continue
                made.append(outcome.value)
                write(path, [*kept, *made], Cohort(device=device, name=device))
                done(f"{_line(outcome.value)}  {outcome.seconds:.0f} s")
    without = [entry.case for entry in made if entry.source.reason]
    summary = {"file": str(path), "calibrated": [e.case for e in made], "without": without, "failed": failed}
    if not write_json_option(options.json, summary):
        print(f"{len(made)} calibrated, {len(without)} of them without limits, {len(failed)} failed: {path}")
    return EXIT_INFRA if failed else EXIT_UNJUDGED if without else EXIT_OK


def _tasks(cases: list[Case], options: argparse.Namespace, scratch: Path) -> list[Task]:
    from thresholds.calibration import Calibration, calibrate

    # threads that wait for work would take the cores of the other cases
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    asked: dict[str, tuple[str, ...]] = {}
    for case in cases:
        asked[case.model] = tuple(dict.fromkeys((*asked.get(case.model, ()), case.quantization)))
    folders = prepare_checkpoints(asked, Options(out=scratch, device=options.device), preparing)
    return [
        Task(
            key=case.id,
            target=calibrate,
            argument=Calibration(
                case=case,
                folder=folders[case.model][0],
                device=options.device,
                samples=options.samples,
                owner=options.owner,
            ),
            timeout=TIMEOUT,
            log=scratch / f"{number}.txt",
        )
        for number, case in enumerate(cases)
    ]


def _jobs(options: argparse.Namespace) -> int:
    if options.jobs is not None:
        return int(options.jobs)
    return len(os.sched_getaffinity(0)) if options.device == "cpu" else 1


def _others(path: Path, device: str, measured: Collection[str]) -> list[Entry]:
    """What the file says of the matrix's other cases."""
    if not path.exists():
        return []
    known = load(path, device=device)
    found = (known.for_case(case.id) for case in all_cases() if case.id not in measured)
    return [each for each in found if each is not None]


def _line(made: Entry) -> str:
    if made.source.reason:
        return f"NO LIMITS {made.case}: {made.source.reason}"
    missed = f"missed: {', '.join(made.source.missed) or 'none'}"
    outcomes = " + ".join(str(len(spread.modes)) for spread in made.source.floor)
    for bound in made.bounds:
        if bound.metric == METRIC:
            limits = f"{METRIC} {bound.noise_floor:.2g} < {bound.limit:.2g} < {bound.defect_value:.2g} ({bound.defect})"
            return f"{made.case}  {limits}  {outcomes} outcomes  {missed}"
    return f"{made.case}  no limit on {METRIC}  {outcomes} outcomes  {missed}"
