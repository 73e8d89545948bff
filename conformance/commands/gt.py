"""``conformance gt``"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from conformance.commands.output import check_writable, preparing, progress, write_json_option
from conformance.errors import InputError, bad_field
from conformance.matrix import all_cases, select
from conformance.pool import Task, run_tasks
from conformance.runner import Options, make_jobs
from conformance.verdicts import EXIT_FAIL, EXIT_INFRA, EXIT_OK
from conformance.worker import build_ground_truth
from ground_truth import Store


def _build(options: argparse.Namespace) -> int:
    if not options.reason.strip():
        raise bad_field("command line", "reason", options.reason, "a text")
    if options.store is not None:
        check_writable("--store", options.store / "manifests")
    cases = select(all_cases(), options.cases, options.suite)
    with tempfile.TemporaryDirectory(prefix="conformance-gt-") as scratch:
        run = Options(
            out=Path(scratch),
            engine=options.engine,
            checkpoint=options.checkpoint,
            text_encoder=options.text_encoder,
            upsampler=options.upsampler,
            lora=options.lora,
            device=options.device,
            threads=options.threads,
            jobs=options.jobs,
            timeout=options.timeout,
            store=options.store,
            reference=options.kind,
        )
        jobs = make_jobs(cases, run, preparing)
        tasks = [
            Task(
                key=job.case.id,
                target=build_ground_truth,
                argument=(job, options.reason),
                timeout=options.timeout,
                log=Path(scratch) / f"{number}.txt",
            )
            for number, job in enumerate(jobs)
        ]
        stored, failed = {}, {}
        with progress(len(tasks), "references") as (done, place):
            for outcome in run_tasks(tasks, jobs=run.workers, on_place=place):
                if outcome.kind == "done":
                    stored[outcome.key] = outcome.value
                    done(f"stored {outcome.key}: {outcome.value}")
                else:
                    failed[outcome.key] = outcome.message
                    done(f"FAILED {outcome.key}: {outcome.message}")
    Store(options.store).prune()
    if not write_json_option(options.json, {"stored": stored, "failed": failed}):
        print(f"{len(stored)} stored, {len(failed)} failed")
    return EXIT_INFRA if failed else EXIT_OK


def _verify(options: argparse.Namespace) -> int:
    if options.store is not None and not options.store.exists():
        raise InputError(f"--store {options.store}: no such folder")
    store = Store(options.store)
    problems, count = store.verify(), len(store.paths())
    if not write_json_option(options.json, {"entries": count, "problems": problems}):
        print("\n".join([*problems, f"{count} entries, {len(problems)} problems"]))
    return EXIT_FAIL if problems else EXIT_OK


def main(options: argparse.Namespace) -> int:
    return _build(options) if options.action == "build" else _verify(options)
