"""``conformance report``"""

from __future__ import annotations

import argparse

from conformance.commands.output import check_writable
from conformance.commands.show import check_targets, show
from reports.merge import merge
from reports.render import write_report


def main(options: argparse.Namespace) -> int:
    check_targets(options)
    check_writable("--out", options.out / "index.html")
    results = merge(options.results, options.out)
    write_report(results, options.out)
    return show(results, options)
