"""Limits on the latents by kind of case, for docs/gates.md: ``python -m thresholds.table thresholds/cpu.json``.

Each cell is the range over the kind's cases: relative L2 of the worst stream.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from conformance.matrix import all_cases
from thresholds.loader import load
from thresholds.schema import Entry

METRIC = "latents.rel_l2"


def lines(path: Path, *, device: str) -> Iterator[str]:
    """Markdown, one line a row: the matrix's cases that the file has limits for. InputError as in ``load``."""
    known = load(path, device=device)
    kinds: dict[tuple[str, str, str], list[Entry]] = {}
    for case in all_cases():
        entry = known.for_case(case.id)
        if entry is not None:
            kinds.setdefault((case.numerics, case.pipeline, case.dtype), []).append(entry)
    yield "| reference | pipeline | dtype | cases | floor | limit | smallest guarded defect | caught | missed |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for kind, entries in kinds.items():
        yield f"| {' | '.join((*kind, str(len(entries)), *_cells(entries)))} |"


def _cells(entries: list[Entry]) -> Iterator[str]:
    bounds = [bound for entry in entries for bound in entry.bounds if bound.metric == METRIC]
    for field in ("noise_floor", "limit", "defect_value"):
        yield _range([getattr(bound, field) for bound in bounds])
    caught = [len(entry.source.caught) for entry in entries]
    yield f"{min(caught)} to {max(caught)}" if min(caught) < max(caught) else str(caught[0])
    yield str(sum(len(entry.source.missed) for entry in entries))


def _range(values: list[float]) -> str:
    low, high = f"{min(values):.1e}", f"{max(values):.1e}"
    return low if low == high else f"{low} to {high}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m thresholds.table", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("path", type=Path, help="thresholds file")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    print("\n".join(lines(options.path, device=options.device)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
