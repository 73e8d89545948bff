"""``conformance gt``"""

from __future__ import annotations

import argparse
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from conformance import results as results_file
from conformance.case import Case
from conformance.commands.output import check_writable, preparing, progress, write_json_option
from conformance.errors import InputError, bad_field
from conformance.matrix import all_cases, matches, select
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


def _diff(options: argparse.Namespace) -> int:
    from ground_truth import diff

    found, alone = diff.pairs(diff.sides(options.a), diff.sides(options.b))
    differences = [diff.difference(old, new) for old, new in found]
    data = {"pairs": [each.as_dict() for each in differences], "alone": alone}
    if not write_json_option(options.json, data):
        print("\n".join([line for each in differences for line in each.lines()] + alone))
    return EXIT_OK if all(each.equal for each in differences) and not alone else EXIT_FAIL


def _accept(options: argparse.Namespace) -> int:
    from ground_truth import accept

    path = options.run / "results.json" if options.run.is_dir() else options.run
    run = results_file.load(path)
    made = accept.acceptance(options.reason, options.owner, options.expires, datetime.now(UTC).date())
    if made.expires < made.date:
        raise bad_field("command line", "expires", options.expires, f"a day to come, from {made.date}")
    chosen = [result for result in run.cases if any(matches(result.id, pattern) for pattern in options.cases)]
    if not chosen:
        raise InputError(f"{path}: no case matches {options.cases}; it holds {len(run.cases)} results")
    if options.what == "gap":
        open_gaps = [result for result in chosen if result.gap.get("state") not in ("exact", "known")]
        written, text = accept.accept_gaps(open_gaps or chosen, options.ledger, made)
        files, texts = [str(written)], [text]
    else:
        store, files, texts = Store(options.store), [], []
        chosen.sort(key=lambda result: bool(result.outputs))  # of a case's gates, one that kept the sample
        for result in {result.id: result for result in chosen}.values():
            manifest, text = accept.accept_output(
                result, path.parent, store, made, lambda case: _digests(case, options.checkpoint)
            )
            files.append(str(manifest))
            texts.append(text)
    return _said(options, files, texts)


def _apply(options: argparse.Namespace) -> int:
    from ground_truth import accept
    from reports.accept import read_patch

    path = options.run / "results.json" if options.run.is_dir() else options.run
    entries = read_patch(options.patch, path.parent, results_file.load(path), datetime.now(UTC).date())
    store, files, texts = Store(options.store), [], []
    for result, made in entries:
        if result.gate == "self":
            written, text = accept.accept_output(
                result, path.parent, store, made, lambda case: _digests(case, options.checkpoint)
            )
        else:
            written, text = accept.accept_gaps([result], options.ledger, made)
        files.append(str(written))
        texts.append(text)
    return _said(options, files, texts)


def _said(options: argparse.Namespace, files: list[str], texts: list[str]) -> int:
    if not write_json_option(options.json, {"written": files, "text": texts}):
        print("\n".join([*texts, *(f"written: {file}" for file in files)]))
    return EXIT_OK


def _digests(case: Case, folder: Path | None) -> dict[str, str]:
    """Of the checkpoint that a run used: the project's own, or a folder."""
    from conformance import checkpoint
    from reference_impl.tiny.build import cached

    return checkpoint.digests(folder or cached(case.model), optional=checkpoint.needed(case.request))


_ACTIONS = {"build": _build, "verify": _verify, "diff": _diff, "accept": _accept, "apply": _apply}


def main(options: argparse.Namespace) -> int:
    return _ACTIONS[options.action](options)
