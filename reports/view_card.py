"""View model of one case's card."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from conformance.case import slug
from conformance.results import CaseResult
from reports.accept import acceptance
from reports.labels import PASSED, VERDICTS, brief_reason
from reports.sound import Sound, sound_view
from reports.text import flatten, one_line, plain, visible
from reports.thumbs import Budget
from reports.view_findings import Gap, Oracle, gap_view, oracle_view, step_view
from reports.view_frames import Frames, frames_view
from reports.view_power import Power, power_view
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
    """Everything about one case and gate. A card that did not pass is ``opened``.

    ``axes`` is a JSON object and ``search`` lower-case text, for the filters; ``accept`` is JSON for the patch.
    """

    anchor: str
    id: str
    gate: str
    verdict: str
    axes: str
    search: str
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
    sound: Sound | None
    gap: Gap | None
    oracle: Oracle | None
    power: Power | None
    resolved: Sides | None
    ledger: Sides | None
    evidence: dict[str, str]
    case: dict[str, str]
    files: tuple[FileLink, ...]
    command: str
    accept: str


def anchor(case: CaseResult) -> str:
    """The element id of a case's card: letters, digits, dots and dashes only."""
    return f"case-{slug(case.id)}-{case.gate}"


def card_view(root: Path, case: CaseResult, budget: Budget) -> Card:
    """The card; pictures are read from under ``root`` as far as the open share of ``budget`` goes."""
    label = VERDICTS[case.verdict]
    evidence = {key: value for key, value in case.evidence.items() if key not in ("limits", "power")}
    prompts = plain(case.case.get("request", ""))
    return Card(
        anchor=anchor(case),
        id=one_line(case.id),
        gate=case.gate,
        verdict=str(case.verdict),
        axes=json.dumps({"gate": case.gate, **{one_line(key): one_line(value) for key, value in case.axes.items()}}),
        search=f"{one_line(case.id)} {case.gate} {case.verdict} {one_line(case.reason)} {prompts}".lower(),
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
        plot=step_view(case),
        frames=frames_view(root, case, budget),
        sound=sound_view(root, case, budget),
        gap=gap_view(case),
        oracle=oracle_view(case),
        power=power_view(case),
        resolved=both_sides(case.resolved),
        ledger=both_sides(case.ledger),
        evidence=flatten(evidence),
        case=flatten(case.case),
        files=file_links(root, case),
        command=visible(case.command),
        accept=acceptance(root, case),
    )
