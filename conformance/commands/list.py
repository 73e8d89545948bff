"""``conformance list``"""

from __future__ import annotations

import argparse

from conformance.commands.output import write_json_option
from conformance.matrix import all_cases, select


def main(options: argparse.Namespace) -> int:
    cases = select(all_cases(), options.cases, options.suite)
    listed = [{"id": case.id, "digest": case.digest, "suites": case.suites, **case.axes} for case in cases]
    if not write_json_option(options.json, {"cases": listed}):
        print("\n".join(case.id for case in cases))
    return 0
