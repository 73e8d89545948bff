"""``conformance report``"""

from __future__ import annotations

import argparse

import thresholds
from conformance.commands.output import check_writable
from conformance.commands.show import check_targets, show
from conformance.errors import InputError
from conformance.rejudge import rejudge
from reports.merge import merge
from reports.render import write_report


def main(options: argparse.Namespace) -> int:
    check_targets(options)
    check_writable("--out", options.out / "index.html")
    limits = None if options.thresholds is None else thresholds.load(options.thresholds)
    if limits is not None:
        _check_kept(options)
    results = merge(options.results, options.out)
    if limits is not None:
        results = rejudge(results, limits)
    write_report(results, options.out)
    return show(results, options)


def _check_kept(options: argparse.Namespace) -> None:
    """Judging again keeps the verdicts it starts from."""
    for path in options.results:
        folder = path if path.is_dir() else path.parent
        if folder.resolve() == options.out.resolve():
            raise InputError(f"--out {options.out}: holds the results that are judged again; choose another folder")
