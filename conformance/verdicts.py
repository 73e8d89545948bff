"""Verdicts and exit codes."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class Verdict(StrEnum):
    """What the harness says about one case and gate."""

    PASS_EXACT = "PASS_EXACT"
    PASS = "PASS"
    FAIL = "FAIL"
    INCOMPARABLE = "INCOMPARABLE"
    NO_REFERENCE = "NO_REFERENCE"
    STALE_REFERENCE = "STALE_REFERENCE"
    CALIBRATION_NEEDED = "CALIBRATION_NEEDED"
    WAIVED = "WAIVED"
    UNSUPPORTED = "UNSUPPORTED"
    INFRA_ERROR = "INFRA_ERROR"


EXIT_OK, EXIT_FAIL, EXIT_USAGE, EXIT_INFRA, EXIT_UNJUDGED = 0, 1, 2, 3, 4

_EXIT = {
    Verdict.PASS_EXACT: EXIT_OK,
    Verdict.PASS: EXIT_OK,
    Verdict.WAIVED: EXIT_OK,
    Verdict.FAIL: EXIT_FAIL,
    Verdict.INFRA_ERROR: EXIT_INFRA,
    Verdict.INCOMPARABLE: EXIT_UNJUDGED,
    Verdict.NO_REFERENCE: EXIT_UNJUDGED,
    Verdict.STALE_REFERENCE: EXIT_UNJUDGED,
    Verdict.CALIBRATION_NEEDED: EXIT_UNJUDGED,
    Verdict.UNSUPPORTED: EXIT_UNJUDGED,
}
_WORST_FIRST = (EXIT_USAGE, EXIT_INFRA, EXIT_FAIL, EXIT_UNJUDGED)


def exit_code(verdicts: Iterable[Verdict]) -> int:
    """The worst exit code of a run; a run that judged nothing is EXIT_UNJUDGED, never a pass."""
    codes = {_EXIT[verdict] for verdict in verdicts}
    if not codes:
        return EXIT_UNJUDGED
    return next((code for code in _WORST_FIRST if code in codes), EXIT_OK)
