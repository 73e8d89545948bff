"""View model of the layout matrix: every case over the layouts it ran on, with verdict and distance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from conformance.results import CaseResult
from conformance.verdicts import Verdict
from reports.labels import VERDICTS, worst_latent
from reports.text import number, one_line
from reports.view_card import anchor

DISTANCE = "parallel.final"  # what a layout is judged by; of one device the latents' distance from the reference


@dataclass(frozen=True)
class LayoutCell:
    label: str
    tone: str
    distance: str
    anchor: str


@dataclass(frozen=True)
class LayoutRow:
    """A case without its layout; ``cells`` are in the order of the columns, empty where it did not run."""

    name: str
    cells: tuple[tuple[LayoutCell, ...], ...]


@dataclass(frozen=True)
class Layouts:
    columns: tuple[str, ...]
    rows: tuple[LayoutRow, ...]


def layouts_view(cases: Sequence[CaseResult]) -> Layouts | None:
    """The matrix, worst row first as in ``cases``; None when no case ran on several ranks."""
    with_layout = [case for case in cases if case.axes.get("layout")]
    columns = sorted({case.axes["layout"] for case in with_layout}, key=lambda name: (name != "single", name))
    if columns in ([], ["single"]):
        return None
    rows: dict[str, dict[str, list[LayoutCell]]] = {}
    spread = {_name(case) for case in with_layout if case.axes["layout"] != "single"}
    for case in with_layout:
        if _name(case) in spread:
            rows.setdefault(_name(case), {}).setdefault(case.axes["layout"], []).append(_cell(case))
    return Layouts(
        columns=tuple(one_line(column) for column in columns),
        rows=tuple(
            LayoutRow(one_line(name), tuple(tuple(cells.get(column, ())) for column in columns))
            for name, cells in rows.items()
        ),
    )


def _name(case: CaseResult) -> str:
    return case.id.replace(f"@{case.axes['layout']}", "", 1)


def _cell(case: CaseResult) -> LayoutCell:
    label = VERDICTS[case.verdict]
    judged = case.metrics.get(DISTANCE)
    distance = judged.worst if judged else worst_latent(case)
    exact = case.verdict is Verdict.PASS_EXACT
    return LayoutCell(label.short, label.tone, "bit-equal" if exact else number(distance, none=""), anchor(case))
