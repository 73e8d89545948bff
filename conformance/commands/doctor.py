"""``conformance doctor``"""

from __future__ import annotations

import argparse
from dataclasses import asdict

from conformance import doctor
from conformance.commands.output import write_json_option
from conformance.verdicts import EXIT_INFRA, EXIT_OK


def main(options: argparse.Namespace) -> int:
    checks = doctor.checks()
    if not write_json_option(options.json, {"checks": [asdict(check) for check in checks]}):
        print(doctor.render(checks))
    return EXIT_INFRA if any(check.status == "fail" for check in checks) else EXIT_OK
