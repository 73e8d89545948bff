"""View models of what a card says in tables: metrics, latents, divergence, the two sides, files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conformance.jsonio import jsonable
from conformance.jsonio import number as json_number
from conformance.results import CaseResult, Divergence, MetricResult
from reports.labels import limit_text, metric_doc, metric_group, metric_label, metric_unit, tap_words
from reports.text import duration, href, inside, leaves, number, one_line, plain

ABSENT = "(absent)"
FILES = {
    "log": "Log",
    "candidate_audio": "Candidate audio",
    "reference_audio": "Reference audio",
    "candidate_latents": "Candidate latents",
    "reference_latents": "Reference latents",
}


@dataclass(frozen=True)
class MetricRow:
    """``tone`` is good, bad or none, ``judged`` says it in words; ``floor`` and ``defect`` are the limit's evidence."""

    label: str
    doc: str
    unit: str
    value: str
    worst: str
    limit: str
    margin: str
    floor: str
    defect: str
    judged: str
    tone: str
    note: str


@dataclass(frozen=True)
class MetricGroup:
    """Metrics of one kind."""

    title: str
    rows: tuple[MetricRow, ...]


@dataclass(frozen=True)
class LatentRow:
    stream: str
    rel_l2: str
    max_abs: str
    norm_ratio: str
    cosine: str
    equal: bool


@dataclass(frozen=True)
class TapRow:
    """A tap that the parallel gate judged or names."""

    tap: str
    role: str
    rel_l2: str
    max_abs: str
    limit: str
    ulps: str
    tone: str


@dataclass(frozen=True)
class DivergenceView:
    """``place`` is the tap in words; ``sentence`` its size; ``counts`` how far the difference reaches."""

    tap: str
    place: str
    sentence: str
    counts: str
    sides: Sides
    missing: tuple[str, ...]


@dataclass(frozen=True)
class SideRow:
    name: str
    candidate: str
    reference: str
    differs: bool
    one_sided: bool


@dataclass(frozen=True)
class Sides:
    """Both sides' values of the same names: those that differ first, those that one side alone has last."""

    rows: tuple[SideRow, ...]

    @property
    def different(self) -> int:
        return sum(row.differs for row in self.rows)

    @property
    def one_sided(self) -> int:
        return sum(row.one_sided for row in self.rows)


@dataclass(frozen=True)
class FileLink:
    label: str
    href: str
    missing: bool
    audio: bool


def metric_row(name: str, metric: MetricResult, evidence: Any = None) -> MetricRow:
    """One metric against its limit; ``evidence`` is what the thresholds entry says of this limit."""
    evidence = evidence if isinstance(evidence, dict) else {}
    margin = "–"
    if metric.worst is not None and metric.limit is not None and metric.ok is not None:
        size = abs(metric.worst - metric.limit)
        margin = "–" if size != size else ("+" if metric.ok else "−") + number(size)
    if metric.ok is not None:
        judged, tone = ("within", "good") if metric.ok else ("outside", "bad")
    else:
        judged, tone = "not judged" if metric.worst is not None else "not measured", "none"
    return MetricRow(
        label=metric_label(name),
        doc=metric_doc(name),
        unit=metric_unit(name),
        value=number(metric.value),
        worst=number(metric.worst),
        limit=limit_text(name, metric.limit) or "–",
        margin=margin,
        floor=_evidence_number(evidence.get("noise_floor")),
        defect=_defect(evidence.get("smallest_defect")),
        judged=judged,
        tone=tone,
        note=one_line(metric.note),
    )


def _evidence_number(value: Any) -> str:
    try:
        return number(json_number(value))
    except ValueError:
        return "" if value is None else one_line(value)


def _defect(value: Any) -> str:
    if not isinstance(value, dict):
        return ""
    return f"{_evidence_number(value.get('value'))} {one_line(value.get('name', ''))}".strip()


def metric_groups(case: CaseResult) -> tuple[MetricGroup, ...]:
    """The case's metrics by kind, in the order of the results."""
    limits = case.evidence.get("limits")
    limits = limits if isinstance(limits, dict) else {}
    groups: dict[str, list[MetricRow]] = {}
    for name, metric in case.metrics.items():
        groups.setdefault(metric_group(name), []).append(metric_row(name, metric, limits.get(name)))
    return tuple(MetricGroup(title, tuple(rows)) for title, rows in groups.items())


def latent_rows(case: CaseResult) -> tuple[LatentRow, ...]:
    return tuple(
        LatentRow(
            stream=one_line(name),
            rel_l2=number(latent.rel_l2),
            max_abs=number(latent.max_abs),
            norm_ratio=number(latent.norm_ratio),
            cosine=number(latent.cosine),
            equal=latent.hash_equal,
        )
        for name, latent in case.latents.items()
    )


_ROLES = {"first": "first to differ", "worst": "worst to differ", "first_forward": "first forward"}


def tap_rows(case: CaseResult) -> tuple[TapRow, ...]:
    return tuple(
        TapRow(
            tap=one_line(tap.tap),
            role=_ROLES.get(tap.role) or one_line(tap.role),
            rel_l2=number(tap.rel_l2),
            max_abs=number(tap.max_abs),
            limit="" if tap.limit is None else f"≤ {number(tap.limit)}",
            ulps=", ".join(f"{one_line(distance)}: {count}" for distance, count in tap.ulps.items()),
            tone="none" if tap.ok is None else "good" if tap.ok else "bad",
        )
        for tap in case.taps
    )


def sides(candidate: Any, reference: Any) -> Sides:
    """Two JSON objects leaf by leaf. A name that only one side reports is no difference: engines have own details."""
    left, right = leaves(jsonable(candidate)), leaves(jsonable(reference))
    rows = [
        SideRow(
            name=one_line(name),
            candidate=plain(left[name]) if name in left else ABSENT,
            reference=plain(right[name]) if name in right else ABSENT,
            differs=name in left and name in right and left[name] != right[name],
            one_sided=(name in left) != (name in right),
        )
        for name in [*left, *(name for name in right if name not in left)]
    ]
    return Sides(rows=tuple(sorted(rows, key=lambda row: (row.one_sided, not row.differs))))


def both_sides(pair: dict[str, Any]) -> Sides | None:
    """``{"candidate": {...}, "reference": {...}}`` as rows; None when there is nothing to show."""
    if not any(pair.get(side) for side in ("candidate", "reference")):
        return None
    return sides(pair.get("candidate") or {}, pair.get("reference") or {})


def divergence_view(found: Divergence) -> DivergenceView:
    size = f"relative L2 {number(found.rel_l2)}, largest difference {number(found.max_abs)}"
    if found.rel_l2 is None:
        shapes = [found.candidate.get("shape"), found.reference.get("shape")]
        same = plain(shapes[0]) == plain(shapes[1])
        size = "size not known: tensors not kept" if same else f"shapes {plain(shapes[0])} and {plain(shapes[1])}"
    return DivergenceView(
        tap=one_line(found.tap),
        place=one_line(tap_words(found.tap)),
        sentence=size,
        counts=f"{found.compared - found.differing} of {found.compared} taps are bit-equal, {found.differing} differ",
        sides=sides(found.candidate, found.reference),
        missing=tuple(one_line(name) for name in found.missing),
    )


def file_links(root: Path, case: CaseResult) -> tuple[FileLink, ...]:
    return tuple(
        FileLink(
            label=FILES.get(name) or one_line(name),
            href=href(path),
            missing=inside(root, path) is None,
            audio=name in ("candidate_audio", "reference_audio"),
        )
        for name, path in case.files.items()
        if path
    )


def seconds_words(case: CaseResult) -> str:
    """``engine 1.20 s, reference 2.31 s, judge 0.40 s``."""
    return ", ".join(f"{one_line(name)} {duration(value)}" for name, value in case.seconds.items())
