"""``conformance report``"""

from __future__ import annotations

import argparse

from conformance.commands.output import check_writable, write_json_option
from reports.console import summary_table
from reports.merge import merge
from reports.render import write_report


def main(options: argparse.Namespace) -> int:
    check_writable("--json", None if options.json == "-" else options.json)
    check_writable("--junit", options.junit)
    check_writable("--out", options.out / "index.html")
    results = merge(options.results, options.out)
    index = write_report(results, options.out)
    if options.junit:
        options.junit.parent.mkdir(parents=True, exist_ok=True)
        options.junit.write_bytes((options.out / "junit.xml").read_bytes())
    if not write_json_option(options.json, results.as_dict()):
        print(summary_table(results))
        print(f"\nreport: {index.resolve()}")
    return results.exit_code
