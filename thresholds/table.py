"""The tables of docs/power.md in Markdown: limits by kind of case, defects by reference and dtype, and every case.

``conformance power --markdown PATH`` writes them below the marker line of a file and leaves what stands above it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path

from conformance.case import Case
from conformance.errors import InputError
from conformance.jsonio import write_atomic
from thresholds import power
from thresholds.floor import METRIC
from thresholds.power import Power
from thresholds.schema import Entry

MARKER = "<!-- Made by: conformance power --markdown docs/power.md -->"


def write(path: Path, lines: Iterator[str]) -> None:
    """Replace what follows the marker line. InputError when the file has none."""
    above, marker, _ = path.read_text(encoding="utf-8").partition(MARKER) if path.exists() else ("", MARKER, "")
    if not marker:
        raise InputError(f"--markdown {path}: has no line {MARKER!r}; expected one, above what is replaced")
    write_atomic(path, "\n".join([above + MARKER, "", *lines, ""]))


def tables(entries: Mapping[str, Entry], cases: Sequence[Case], today: date) -> Iterator[str]:
    """Every table for these cases, in their order; those without an entry are left out."""
    chosen = [(case, entries[case.id]) for case in cases if case.id in entries]
    powers = {case.id: power.of(entry, today) for case, entry in chosen}
    yield "## Limits on the latents"
    yield ""
    yield f"`{METRIC}`, worst stream; ranges over the cases of a kind. Outcomes: distinct bits among all legal runs."
    yield ""
    yield from _limits(chosen)
    yield ""
    yield "## Defects"
    yield ""
    yield "Cases that catch a defect, of those it can show in, and the metrics that catch it most often. `w`: waived."
    yield ""
    yield from _defects(chosen, powers)
    yield ""
    yield "## Cases"
    yield ""
    yield "| case | power | caught | missed | waived |"
    yield "|---|---|---|---|---|"
    for each in powers.values():
        cells = (f"{each.power:.3f}", str(len(each.by)), ", ".join(each.missed), ", ".join(each.waived))
        trouble = f" **{each.trouble}**" if each.trouble else ""
        yield f"| `{each.case}`{trouble} | {' | '.join(cells)} |"


def _limits(chosen: Sequence[tuple[Case, Entry]]) -> Iterator[str]:
    kinds: dict[tuple[str, str, str], list[Entry]] = {}
    for case, entry in chosen:
        kinds.setdefault((case.numerics, case.pipeline, case.dtype), []).append(entry)
    yield "| reference | pipeline | dtype | cases | outcomes | floor | limit | smallest guarded defect |"
    yield "|---|---|---|---|---|---|---|---|"
    for kind, entries in kinds.items():
        bounds = [bound for entry in entries for bound in entry.bounds if bound.metric == METRIC]
        outcomes = [len({mark for spread in entry.source.floor for mark, _ in spread.modes}) for entry in entries]
        cells = [_range([getattr(b, name) for b in bounds]) for name in ("noise_floor", "limit", "defect_value")]
        counts = f"{min(outcomes)} to {max(outcomes)}" if min(outcomes) < max(outcomes) else str(outcomes[0])
        yield f"| {' | '.join((*kind, str(len(entries)), counts, *cells))} |"


def _range(values: Sequence[float]) -> str:
    if not values:
        return ""
    low, high = f"{min(values):.1e}", f"{max(values):.1e}"
    return low if low == high else f"{low} to {high}"


def _defects(chosen: Sequence[tuple[Case, Entry]], powers: Mapping[str, Power]) -> Iterator[str]:
    groups: dict[str, list[Power]] = {}
    for case, _ in chosen:
        groups.setdefault(f"{case.numerics.partition('-')[0]} {case.dtype}", []).append(powers[case.id])
    yield f"| defect | {' | '.join(groups)} | caught by |"
    yield f"|---|{'---|' * len(groups)}---|"
    for name in power.defects(list(powers.values())):
        cells = [_count([each.mark(name) for each in group]) for group in groups.values()]
        yield f"| {name} | {' | '.join(cells)} | {power.catching(list(powers.values()), name)} |"


def _count(marks: Sequence[str]) -> str:
    caught, waived = marks.count(power.CAUGHT), marks.count(power.WAIVED)
    shown = len(marks) - marks.count(power.ABSENT)
    if not shown:
        return ""
    return f"{caught}/{shown}" + (f", {waived} w" if waived else "")
