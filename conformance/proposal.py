"""A change of the gap ledger for people to review: the new file and a patch, never the repository itself."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from conformance import environment
from conformance.jsonio import write_atomic
from conformance.ledger import NONE, SHIPPED, Ledger, load
from conformance.ledger_rules import proposed
from conformance.results import CaseResult
from conformance.runner import Options


def propose(results: Sequence[CaseResult], options: Options) -> bool:
    """Write ``gaps.json`` and ``gaps.patch`` to the run's folder when a gap shrank; whether one did."""
    gaps = options.gaps
    ledger = None if gaps == NONE else load(Path(gaps) if gaps else None, environment.cohort_device(options.device))
    if ledger is None:
        return False
    better = proposed(results, ledger)
    if better is not ledger:
        write(options.out, ledger, better)
    return better is not ledger


def write(folder: Path, old: Ledger, new: Ledger) -> None:
    """``gaps.json``, the new ledger, and ``gaps.patch``, which makes it of the old one (``git apply``)."""
    write_atomic(folder / "gaps.json", new.dump())
    write_atomic(folder / "gaps.patch", patch(old, new))


def patch(old: Ledger, new: Ledger) -> str:
    """A unified diff of the shipped file of the ledger's cohort."""
    name = (SHIPPED / file_name(new)).relative_to(SHIPPED.parent.parent).as_posix()
    before, after = (ledger.dump().splitlines(keepends=True) for ledger in (old, new))
    return "".join(difflib.unified_diff(before, after, f"a/{name}", f"b/{name}"))


def file_name(ledger: Ledger) -> str:
    """``cpu.json``, ``nvidia-h200.json``."""
    return "-".join(ledger.cohort.device.lower().split()) + ".json"
