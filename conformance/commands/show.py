"""How ``run``, ``report`` and ``compare`` end: targets asked for before the work, results shown after it."""

from __future__ import annotations

import argparse

from conformance.commands.output import check_writable, write_json_option
from conformance.results import Results
from reports.console import summary_table


def check_targets(options: argparse.Namespace) -> None:
    """InputError when ``--json`` or ``--junit`` (of the commands that have it) cannot be written."""
    check_writable("--json", None if options.json == "-" else options.json)
    check_writable("--junit", getattr(options, "junit", None))


def show(results: Results, options: argparse.Namespace) -> int:
    """Write the copies asked for, print the summary unless JSON takes standard output; returns the exit code."""
    junit = getattr(options, "junit", None)
    if junit is not None:
        junit.parent.mkdir(parents=True, exist_ok=True)
        junit.write_bytes((options.out / "junit.xml").read_bytes())
    if not write_json_option(options.json, results.as_dict()):
        print(summary_table(results))
        print(f"\nreport: {(options.out / 'index.html').resolve()}")
    return results.exit_code
