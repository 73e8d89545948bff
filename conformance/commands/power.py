"""``conformance power``"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from conformance import environment
from conformance.case import Case
from conformance.commands.output import check_writable, preparing, progress, write_json_option
from conformance.matrix import all_cases, select
from conformance.pool import Task, run_tasks
from conformance.runner import Options, prepare_checkpoints
from conformance.verdicts import EXIT_FAIL, EXIT_INFRA, EXIT_OK
from thresholds import power, table, waivers
from thresholds.loader import Thresholds, load
from thresholds.schema import Entry

TIMEOUT = 1800.0  # seconds a case may take


@dataclass
class Table:
    """powers: a row a case. dropped: what was caught when the limits were made, and is not now. failed: not run."""

    powers: list[power.Power] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def main(options: argparse.Namespace) -> int:
    check_writable("--json", None if options.json == "-" else options.json)
    check_writable("--markdown", options.markdown)
    known = load(options.thresholds, device=environment.cohort_device(options.device))
    cases = {case.id: case for case in select(all_cases(), options.cases, "full")}
    entries = power.chosen(known, list(cases))
    today = waivers.today()
    if options.measure:
        shown = _measured([(cases[entry.case], entry) for entry in entries], options, today)
    else:
        shown = Table(powers=[power.of(entry, today) for entry in entries])
    whole = known if not options.cases else Thresholds(known.entries)  # a few cases say nothing of every waiver
    found = [*shown.dropped, *power.problems(shown.powers, whole, today)]
    if options.markdown is not None:
        table.write(options.markdown, table.tables(known.entries, list(cases.values()), today))
    summary = {"cases": [each.as_dict() for each in shown.powers], "problems": found, "failed": shown.failed}
    if not write_json_option(options.json, summary):
        details = (line for each in shown.powers for line in power.details(each))
        print("\n".join(details if options.cases else power.grid(shown.powers)))
    for line in [*found, *shown.failed]:
        print(line, file=sys.stderr)
    return EXIT_INFRA if shown.failed else EXIT_FAIL if found else EXIT_OK


def _measured(chosen: Sequence[tuple[Case, Entry]], options: argparse.Namespace, today: date) -> Table:
    """The battery run now, with the limits as they are."""
    entries, shown = {entry.case: entry for _, entry in chosen}, Table()
    with tempfile.TemporaryDirectory(prefix="conformance-power-") as scratch:
        run = Options(out=Path(scratch), device=options.device, jobs=options.jobs)
        tasks = _tasks(chosen, run)
        with progress(len(tasks), "cases") as (done, place):
            for outcome in run_tasks(tasks, jobs=run.workers, on_place=place):
                if outcome.kind != "done":
                    shown.failed.append(f"{outcome.key}: {outcome.message}")
                    done(f"FAILED {shown.failed[-1]}")
                    continue
                now, lost = power.remeasured(entries[outcome.key], outcome.value, today)
                shown.powers.append(now)
                was = "was caught when the limits were made, and is not now"
                shown.dropped += [f"{outcome.key}: {name} {was}" for name in lost]
                done(f"{outcome.key}  power {now.power:.3f}")
    return shown


def _tasks(chosen: Sequence[tuple[Case, Entry]], run: Options) -> list[Task]:
    from thresholds.calibration import Recheck, recheck

    asked: dict[str, tuple[str, ...]] = {}
    for case, _ in chosen:
        asked[case.model] = tuple(dict.fromkeys((*asked.get(case.model, ()), case.quantization)))
    folders = prepare_checkpoints(asked, run, preparing)
    return [
        Task(
            key=case.id,
            target=recheck,
            argument=Recheck(case=case, folder=folders[case.model][0], device=run.device, limits=entry.limits),
            timeout=TIMEOUT,
            log=run.out / f"{number}.txt",
        )
        for number, (case, entry) in enumerate(chosen)
    ]
