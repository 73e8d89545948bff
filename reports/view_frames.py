"""View models of a case's frames: the worst one in full, all of them as a strip."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from conformance.results import CaseResult, FrameResult
from conformance.verdicts import Verdict
from reports.labels import key_metric, metric_label, metric_unit
from reports.text import href, number
from reports.thumbs import Budget, Thumb, thumb

PANE, EXACT_PANE, STRIP = 640, 192, 128  # longer side of embedded pictures, in pixels
_STRIP_METRICS = ("ssim", "mean_abs_diff")
_NOT_SAVED = Thumb("", 0, 0, "not saved")
_EQUAL = Thumb("", 0, 0, "equal: every pixel is the reference's")


@dataclass(frozen=True)
class Pane:
    """One picture of the chosen frame, or words in its place. ``href`` is empty when there is no file."""

    title: str
    picture: Thumb
    href: str


@dataclass(frozen=True)
class StripFrame:
    """One frame of the strip: a thumbnail, or a name alone (``picture`` is None)."""

    name: str
    picture: Thumb | None
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


def equal(frame: FrameResult) -> bool:
    """Whether both sides' pixels of a judged frame are the same."""
    return frame.metrics.get("max_abs_diff") == 0


def _panes(root: Path, frame: FrameResult, exact: bool, budget: Budget) -> tuple[Pane, ...]:
    """Both sides and their difference; of an exact case one side, small: the other is the same picture."""
    if exact:
        return (
            Pane("Candidate and reference", thumb(root, frame.candidate, EXACT_PANE, budget), href(frame.candidate)),
        )
    sides = (("Candidate", frame.candidate), ("Reference", frame.reference), ("Difference", frame.heat))
    panes = [Pane(title, thumb(root, path, PANE, budget), href(path)) for title, path in sides if path]
    return (*panes, *([Pane("Difference", _EQUAL, "")] if equal(frame) else []))


def _pictured(frames: Sequence[FrameResult], exact: bool) -> Sequence[FrameResult]:
    """The frames of a strip that get a thumbnail: all, or of an exact case the first, middle and last."""
    return [frames[0], frames[len(frames) // 2], frames[-1]] if exact else frames


def _strip_frame(root: Path, frame: FrameResult, worst: bool, pictured: bool, budget: Budget) -> StripFrame:
    path = frame.candidate or frame.reference
    names = [name for name in _STRIP_METRICS if name in frame.metrics] or list(frame.metrics)[:2]
    return StripFrame(
        name=f"frame {frame.index}",
        picture=(thumb(root, path, STRIP, budget) if path else _NOT_SAVED) if pictured else None,
        href=href(path) if path else "",
        metrics=_strip_metrics(frame, names) if pictured else (),
        worst=worst,
    )


def _strip_metrics(frame: FrameResult, names: Sequence[str]) -> tuple[str, ...]:
    if not frame.metrics:
        return ("not judged",)  # a given frame, or one that only one side has
    return tuple(f"{metric_label(name)} {number(frame.metrics[name])}" for name in names)


def frames_view(root: Path, case: CaseResult, budget: Budget) -> Frames | None:
    """The frames of a case, or None when it has none. Thumbnails are made in order of use until the budget ends."""
    if not case.frames:
        return None
    exact = case.verdict is Verdict.PASS_EXACT and all(frame.candidate for frame in case.frames)
    worst, name = (case.frames[0], "") if exact else worst_frame(case)
    panes = _panes(root, worst, exact, budget)
    judged = sum(bool(frame.metrics) for frame in case.frames)
    several = len({frame.batch for frame in case.frames}) > 1
    place = f"frame {worst.index}" + (f" of output {worst.batch}" if several else "")
    why = f"Worst by {metric_label(name)}" if name else "First"
    strips = []
    for batch, group in groupby(sorted(case.frames, key=lambda f: (f.batch, f.index)), key=lambda f: f.batch):
        frames = list(group)
        shown_frames = _pictured(frames, exact)
        made = [
            _strip_frame(root, frame, frame is worst and not exact, frame in shown_frames, budget) for frame in frames
        ]
        strips.append(Strip(title=f"Output {batch}" if several else "", frames=tuple(made)))
    shown = next((pane.picture for pane in panes if pane.picture.width), None)
    return Frames(
        chosen=f"{why}: {place}, of {judged} judged" + (", all equal" if exact else ""),
        size=f"{shown.width} × {shown.height} pixels" if shown else "",
        panes=panes,
        metrics=tuple((metric_label(key), _with_unit(key, value)) for key, value in worst.metrics.items() if not exact),
        strips=tuple(strips),
    )
