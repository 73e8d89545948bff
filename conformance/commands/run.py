"""``conformance run``"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from conformance import attached, cluster
from conformance.case import Case
from conformance.commands.output import preparing, progress
from conformance.commands.show import check_targets, show
from conformance.errors import InputError
from conformance.job import LIVE, Job
from conformance.matrix import all_cases, parse_shard, select, shard
from conformance.overrides import depart
from conformance.proposal import propose
from conformance.results import CaseResult, Results
from conformance.runner import Options, collect, make_jobs, open_out, run_jobs
from conformance.verdicts import EXIT_OK, exit_code
from reports.labels import brief_reason
from reports.render import write_report
from reports.text import one_line

Start = Callable[[Sequence[Job], Options, Callable[[str, str], None]], Iterator[CaseResult]]


def execute(options: argparse.Namespace) -> Results | None:
    """Run what the command line asks for and write the report; returns the results, None on a rank that has none."""
    check_targets(options)
    cases = select(all_cases(), options.cases, options.suite)
    if options.shard:
        cases = shard(cases, *parse_shard(options.shard))
    cases = depart(
        cases,
        settings=options.set,
        config=options.config,
        quantization=options.quantization,
        kernels=options.kernels,
        image=options.image,
    )
    asked = list(dict.fromkeys(options.reference)) or [LIVE]
    run = Options(
        out=options.out,
        engine=options.engine,
        reference=asked[0],
        further=tuple(asked[1:]),
        checkpoint=options.checkpoint,
        text_encoder=options.text_encoder,
        upsampler=options.upsampler,
        lora=options.lora,
        device=options.device,
        threads=options.threads,
        jobs=options.jobs,
        timeout=options.timeout,
        thresholds=options.thresholds,
        store=options.store,
        ledger=options.ledger,
        oracle=options.oracle,
        clip=options.clip,
        depth=options.depth,
        resume=options.resume,
        shard=options.shard,
    )
    started = time.time()
    place = attached.here()
    if options.cluster is not None:
        if place is not None:
            raise InputError("--cluster: not under torchrun, whose processes are placed already")
        with cluster.joined(options.cluster, run) as nodes, open_out(run.out, resume=run.resume):
            return _execute(cases, run, started, partial(cluster.lead, nodes))
    if place is None:
        with open_out(run.out, resume=run.resume):
            return _execute(cases, run, started, run_jobs)
    store = attached.meet()
    if place.rank > 0:
        attached.follow(run, place, store)
        return None
    with attached.telling(store), open_out(run.out, resume=run.resume):
        return _execute(cases, run, started, partial(attached.lead, place, store))


def _execute(cases: Sequence[Case], run: Options, started: float, start: Start) -> Results:
    """start: ``run_jobs``, or what takes its place on a cluster or among processes that were started together."""
    print(f"preparing {len(cases)} cases ...", file=sys.stderr, flush=True)
    jobs = make_jobs(cases, run, preparing)
    results = []
    with progress(sum(len(job.gates) for job in jobs), "cases") as (done, place):
        for result in start(jobs, run, place):
            results.append(result)
            seconds = sum(result.seconds.values())
            reason = "" if exit_code([result.verdict]) == EXIT_OK else f"  {one_line(brief_reason(result))}"
            gate = f"  {result.gate}" if run.further else ""
            done(f"{result.verdict:<18} {result.id}{gate}  {seconds:.1f} s{reason}")
    whole = collect(cases, results, run, started, shlex.join(["conformance", *sys.argv[1:]]))
    write_report(whole, run.out)
    if propose(whole.cases, run):
        print(f"gaps shrank: {run.out / 'gaps.patch'} updates the ledger", file=sys.stderr)
    return whole


def main(options: argparse.Namespace) -> int:
    results = execute(options)
    return EXIT_OK if results is None else show(results, options)
