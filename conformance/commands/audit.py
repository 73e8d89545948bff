"""``conformance audit``"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from conformance import audit, results
from conformance.case import Case
from conformance.commands.output import write_json_option
from conformance.errors import InputError
from conformance.jsonio import digest
from conformance.matrix import all_cases
from conformance.verdicts import EXIT_FAIL, EXIT_OK


def main(options: argparse.Namespace) -> int:
    if options.store is not None and not options.store.is_dir():
        raise InputError(f"--store {options.store}: no such folder")
    cases: dict[str, tuple[dict[str, Any], dict[str, str]]] = {}
    for path in options.results:
        loaded = results.load(path / "results.json" if path.is_dir() else path)
        cases |= {case.id: (case.case, case.outputs) for case in loaded.cases if case.outputs}
    entries = list(_stored(options.store))
    found = [*audit.without_effect(cases), *audit.stored(entries)]
    data = {"cases": len(cases), "references": len(entries), "findings": [asdict(each) for each in found]}
    if not write_json_option(options.json, data):
        lines = [f"{each.kind}: {each.sentence}" for each in found]
        print("\n".join([*lines, f"{len(cases)} cases, {len(entries)} references, {len(found)} findings"]))
    return EXIT_FAIL if found else EXIT_OK


def _stored(root: Path | None) -> Iterable[audit.Stored]:
    """Every reference of the store, seen from the matrix, the project's checkpoints and this environment."""
    from conformance import checkpoint, environment
    from conformance.job import reference_of
    from ground_truth import Store
    from ground_truth.manifest import identity
    from ground_truth.stale import differences
    from reference_impl.tiny.build import cached

    by_id: dict[str, Case] = {case.id: case for case in all_cases()}
    today = datetime.now(UTC).date()
    for entry in Store(root).entries():
        case, stale, unused = by_id.get(entry.case_id), [], ""
        if case is None:
            unused = "the matrix has none of this id"
        elif entry.kind not in ("self", reference_of(case)):
            unused = f"its reference is {reference_of(case)}'s"
        else:
            digests = checkpoint.digests(cached(case.model), optional=checkpoint.needed(case.request))
            ledger = environment.ledger("cpu")
            stale = differences(entry, case, digests, ledger, entry.case_id)
        over = entry.accepted is not None and entry.accepted.expired(today)
        yield audit.Stored(
            name=f"{entry.case_id} ({entry.kind})",
            case=entry.case,
            outputs=digest(sorted((item.name, item.sha256) for item in entry.artifacts if item.role in _OUTPUTS)),
            environment=identity(entry.ledger, entry.case_id),
            checkpoint=entry.checkpoint,
            unused=unused,
            stale=tuple(stale),
            expired=f"{entry.accepted}; that day is over" if over else "",
        )


_OUTPUTS = ("frame", "latents", "audio")
