"""View models of a case's frames: the worst one in full, all of them as a strip."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from conformance.results import CaseResult, FrameResult
from reports.labels import key_metric, metric_label, metric_unit
from reports.text import href, number
from reports.thumbs import Budget, Thumb, thumb

PANE, STRIP = 640, 128  # longer side of embedded pictures, in pixels
_STRIP_METRICS = ("ssim", "mean_abs_diff")


@dataclass(frozen=True)
class Pane:
    """One picture of the worst frame. ``href`` is empty when no file was saved."""

    title: str
    picture: Thumb
    href: str


@dataclass(frozen=True)
class StripFrame:
    """One thumbnail of the strip."""

    name: str
    picture: Thumb
    href: str
    metrics: tuple[str, ...]
    worst: bool


@dataclass(frozen=True)
class Strip:
    """All judged frames of one output."""

    title: str
    frames: tuple[StripFrame, ...]


@dataclass(frozen=True)
class Frames:
    """``chosen`` says in words which frame is shown and why; ``size`` is its size in pixels."""

    chosen: str
    size: str
    panes: tuple[Pane, ...]
    metrics: tuple[tuple[str, str], ...]
    strips: tuple[Strip, ...]


def worst_frame(case: CaseResult) -> tuple[FrameResult, str]:
    """The frame that decided the key metric's worst value, and that metric ("" when the frames carry none)."""
    order = [key_metric(case), *case.metrics, *case.frames[0].metrics]
    name = next((name for name in order if name and any(name in frame.metrics for frame in case.frames)), "")
    metric = case.metrics.get(name)
    if not name or metric is None or metric.worst is None:
        return case.frames[0], ""
    worst = metric.worst
    having = [frame for frame in case.frames if name in frame.metrics]

    def away(frame: FrameResult) -> float:
        value = frame.metrics[name]
        if math.isnan(value) or value == worst:
            return -1.0 if math.isnan(value) else 0.0
        return math.inf if math.isnan(worst) else abs(value - worst)

    return min(having, key=away), name


def _with_unit(name: str, value: float) -> str:
    return f"{number(value)} {metric_unit(name)}".rstrip()


def _strip_frame(root: Path, frame: FrameResult, worst: bool, budget: Budget) -> StripFrame:
    path = frame.candidate or frame.reference
    names = [name for name in _STRIP_METRICS if name in frame.metrics] or list(frame.metrics)[:2]
    return StripFrame(
        name=f"frame {frame.index}",
        picture=thumb(root, path, STRIP, budget) if path else Thumb("", 0, 0, "not saved"),
        href=href(path) if path else "",
        metrics=tuple(f"{metric_label(name)} {number(frame.metrics[name])}" for name in names),
        worst=worst,
    )


def frames_view(root: Path, case: CaseResult, budget: Budget) -> Frames | None:
    """The frames of a case, or None when it has none. Thumbnails are made in order of use until the budget ends."""
    if not case.frames:
        return None
    worst, name = worst_frame(case)
    sides = (("Candidate", worst.candidate), ("Reference", worst.reference), ("Difference", worst.heat))
    panes = tuple(Pane(title, thumb(root, path, PANE, budget), href(path)) for title, path in sides if path)
    several = len({frame.batch for frame in case.frames}) > 1
    place = f"frame {worst.index}" + (f" of output {worst.batch}" if several else "")
    why = f"Worst by {metric_label(name)}" if name else "First"
    strips = tuple(
        Strip(
            title=f"Output {batch}" if several else "",
            frames=tuple(_strip_frame(root, frame, frame is worst, budget) for frame in group),
        )
        for batch, group in groupby(sorted(case.frames, key=lambda f: (f.batch, f.index)), key=lambda f: f.batch)
    )
    shown = next((pane.picture for pane in panes if pane.picture.width), None)
    return Frames(
        chosen=f"{why}: {place}, of {len(case.frames)} judged",
        size=f"{shown.width} × {shown.height} pixels" if shown else "",
        panes=panes,
        metrics=tuple((metric_label(key), _with_unit(key, value)) for key, value in worst.metrics.items()),
        strips=strips,
    )
