"""View model of one case's card."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from conformance.case import slug
from conformance.results import CaseResult
from reports import plots
from reports.labels import PASSED, PER_STEP, VERDICTS, brief_reason
from reports.text import flatten, one_line, visible
from reports.thumbs import Budget
from reports.view_frames import Frames, frames_view
from reports.view_tables import (
    DivergenceView,
    FileLink,
    LatentRow,
    MetricGroup,
    Sides,
    TapRow,
    both_sides,
    divergence_view,
    file_links,
    latent_rows,
    metric_groups,
    seconds_words,
    tap_rows,
)


@dataclass(frozen=True)
class Card:
    """Everything about one case and gate. A card that did not pass is ``opened``."""

    anchor: str
    id: str
    gate: str
    label: str
    tone: str
    sentence: str
    reason: str
    opened: bool
    tags: tuple[tuple[str, str], ...]
    shared: tuple[str, ...]
    seconds: str
    metrics: tuple[MetricGroup, ...]
    taps: tuple[TapRow, ...]
    layout: str
    latents: tuple[LatentRow, ...]
    divergence: DivergenceView | None
    plot: Markup
    frames: Frames | None
    resolved: Sides | None
    ledger: Sides | None
    evidence: dict[str, str]
    case: dict[str, str]
    files: tuple[FileLink, ...]
    command: str


def anchor(case: CaseResult) -> str:
    """The element id of a case's card: letters, digits, dots and dashes only."""
    return f"case-{slug(case.id)}-{case.gate}"


def card_view(root: Path, case: CaseResult, budget: Budget) -> Card:
    """The card; pictures are read from under ``root`` as far as the open share of ``budget`` goes."""
    label = VERDICTS[case.verdict]
    per_step = case.metrics.get(PER_STEP)
    evidence = {key: value for key, value in case.evidence.items() if key != "limits"}
    return Card(
        anchor=anchor(case),
        id=one_line(case.id),
        gate=case.gate,
        label=label.short,
        tone=label.tone,
        sentence=label.sentence,
        reason=visible(brief_reason(case)),
        opened=case.verdict not in PASSED,
        tags=tuple((one_line(name), one_line(value)) for name, value in case.axes.items()),
        shared=tuple(one_line(name) for name in case.shared),
        seconds=seconds_words(case),
        metrics=metric_groups(case),
        taps=tap_rows(case),
        layout=one_line(case.axes.get("layout", "")),
        latents=latent_rows(case),
        divergence=divergence_view(case.divergence) if case.divergence else None,
        plot=plots.step_plot(case.steps, per_step.limit if per_step else None),
        frames=frames_view(root, case, budget),
        resolved=both_sides(case.resolved),
        ledger=both_sides(case.ledger),
        evidence=flatten(evidence),
        case=flatten(case.case),
        files=file_links(root, case),
        command=visible(case.command),
    )
