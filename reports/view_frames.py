"""View models of a case's frames: the worst one in full, all of them as a strip and over time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from markupsafe import Markup

from conformance.results import CaseResult, FrameResult
from conformance.verdicts import Verdict
from reports.labels import key_metric, metric_label, metric_unit
from reports.text import href, number
from reports.thumbs import Budget, Thumb, thumb
from reports.tiles import Tiles, tiles
from reports.timeline import timeline

EXACT_PANE = 192  # longer side of an embedded picture, in pixels
# Bytes a case has -> longer side of its panes and of the pictures in a strip, and how many frames of one have them.
_SIZES = ((240_000, 640, 128, 48), (100_000, 448, 112, 24), (0, 288, 80, 8))
FRAME_BYTES = 700  # of a frame's links and words in the strip
_STRIP_METRICS = ("ssim", "mean_abs_diff")
_TIMELINE_METRICS = ("ssim", "psnr", "mean_abs_diff")
_ROWS = 3  # of a timeline
_NOT_SAVED = Thumb("", 0, 0, "not saved")
_EQUAL = Thumb("", 0, 0, "equal: every pixel is the reference's")
_SLOWEST, _FASTEST = 1.0, 30.0  # frames per second of the playback


@dataclass(frozen=True)
class Pane:
    """One picture of the chosen frame, or words in its place. ``href`` is empty when there is no file.

    side: ``candidate``, ``reference``, ``heat``, or ``both`` where they are equal.
    """

    side: str
    title: str
    picture: Thumb
    href: str


@dataclass(frozen=True)
class Side:
    """One side of a frame in the strip: a link, and a thumbnail where there is room for one."""

    name: str
    picture: Thumb | None
    href: str


@dataclass(frozen=True)
class StripFrame:
    """One frame of the strip. ``heat`` is a link to its difference, empty where there is none."""

    name: str
    sides: tuple[Side, ...]
    heat: str
    metrics: tuple[str, ...]
    worst: bool


@dataclass(frozen=True)
class Strip:
    """The frames of one output, in order. ``left_out`` frames are beside the report and not on the page."""

    title: str
    frames: tuple[StripFrame, ...]
    left_out: int
    timeline: Markup


@dataclass(frozen=True)
class Frames:
    """``chosen`` says which frame is shown and why, ``size`` its size in pixels; ``rate`` is in frames a second."""

    chosen: str
    size: str
    rate: float
    panes: tuple[Pane, ...]
    tiles: Tiles | None
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


def equal(frame: FrameResult) -> bool:
    """Whether both sides' pixels of a judged frame are the same."""
    return frame.metrics.get("max_abs_diff") == 0


def _panes(root: Path, frame: FrameResult, exact: bool, longest: int, budget: Budget) -> tuple[Pane, ...]:
    """Both sides and their difference; of an exact case one side, small: the other is the same picture."""
    if exact:
        picture = thumb(root, frame.candidate, EXACT_PANE, budget)
        return (Pane("both", "Candidate and reference", picture, href(frame.candidate)),)
    sides = (
        ("candidate", "Candidate", frame.candidate),
        ("reference", "Reference", frame.reference),
        ("heat", "Difference", frame.heat),
    )
    panes = [Pane(side, title, thumb(root, path, longest, budget), href(path)) for side, title, path in sides if path]
    return (*panes, *([Pane("heat", "Difference", _EQUAL, "")] if equal(frame) else []))


def _spread(count: int, first: Sequence[int]) -> list[int]:
    """All places, ``first`` first, then ends and middles before what lies between: the order pictures are made in."""
    order = dict.fromkeys([*first, 0, count - 1])
    stride = count
    while stride > 1:
        stride = (stride + 1) // 2
        order |= dict.fromkeys(range(0, count, stride))
    return [place for place in order if 0 <= place < count]


def _sides(root: Path, frame: FrameResult, exact: bool, longest: int, budget: Budget) -> tuple[Side, ...]:
    """longest: of the pictures, in pixels; 0 for links alone."""
    paths = {"candidate": frame.candidate, "reference": frame.reference}
    if exact:
        paths = {"both": frame.candidate}
    made = [
        Side(name, thumb(root, path, longest, budget) if longest else None, href(path))
        for name, path in paths.items()
        if path
    ]
    return tuple(made) or (Side("", _NOT_SAVED, ""),)


def _strip(
    root: Path,
    frames: Sequence[FrameResult],
    worst: FrameResult,
    *,
    title: str,
    name: str,
    exact: bool,
    longest: int,
    most: int,
    budget: Budget,
) -> Strip:
    """name: the metric that chose the worst frame. longest, most: size of the pictures and how many frames have one."""
    places = {id(frame): place for place, frame in enumerate(frames)}
    first = [places[id(worst)]] if id(worst) in places and not exact else []
    order = _spread(len(frames), first)
    pictured = {0, len(frames) // 2, len(frames) - 1} if exact else set(order[:most])
    made: dict[int, StripFrame] = {}
    for place in order:
        if not budget.take_words(FRAME_BYTES):
            break
        frame, with_picture = frames[place], place in pictured
        made[place] = StripFrame(
            name=f"frame {frame.index}",
            sides=_sides(root, frame, exact, longest if with_picture else 0, budget),
            heat=href(frame.heat) if frame.heat else "",
            metrics=_strip_metrics(frame) if with_picture else (),
            worst=frame is worst and not exact,
        )
    rows = list(dict.fromkeys([*([name] if name else []), *_TIMELINE_METRICS]))[:_ROWS]
    return Strip(
        title=title,
        frames=tuple(made[place] for place in sorted(made)),
        left_out=len(frames) - len(made),
        timeline=Markup() if exact else timeline(frames, rows, worst if first else None),
    )


def _strip_metrics(frame: FrameResult) -> tuple[str, ...]:
    if not frame.metrics:
        return ("not judged",)  # a given frame, or one that only one side has
    names = [name for name in _STRIP_METRICS if name in frame.metrics] or list(frame.metrics)[:2]
    return tuple(f"{metric_label(name)} {number(frame.metrics[name])}" for name in names)


def frames_view(root: Path, case: CaseResult, budget: Budget) -> Frames | None:
    """The frames of a case, or None when it has none. Thumbnails are made in order of use until the budget ends."""
    if not case.frames:
        return None
    exact = case.verdict is Verdict.PASS_EXACT and all(frame.candidate for frame in case.frames)
    worst, name = (case.frames[0], "") if exact else worst_frame(case)
    pane, small, most = next(sizes for least, *sizes in _SIZES if budget.share >= least)
    panes = _panes(root, worst, exact, pane, budget)
    judged = sum(bool(frame.metrics) for frame in case.frames)
    several = len({frame.batch for frame in case.frames}) > 1
    place = f"frame {worst.index}" + (f" of output {worst.batch}" if several else "")
    why = f"Worst by {metric_label(name)}" if name else "First"
    ordered = sorted(case.frames, key=lambda frame: (frame.batch, frame.index))
    strips = tuple(
        _strip(
            root,
            list(group),
            worst,
            title=f"Output {batch}" if several else "",
            name=name,
            exact=exact,
            longest=small,
            most=most,
            budget=budget,
        )
        for batch, group in groupby(ordered, key=lambda frame: frame.batch)
    )
    shown = next((pane.picture for pane in panes if pane.picture.width), None)
    metrics = [
        (metric_label(key), f"{number(value)} {metric_unit(key)}".rstrip()) for key, value in worst.metrics.items()
    ]
    return Frames(
        chosen=f"{why}: {place}, of {judged} judged" + (", all equal" if exact else ""),
        size=f"{shown.width} × {shown.height} pixels" if shown else "",
        rate=_rate(case),
        panes=panes,
        tiles=None if exact else tiles(root, worst),
        metrics=() if exact else tuple(metrics),
        strips=strips if len(case.frames) > 1 else (),
    )


def _rate(case: CaseResult) -> float:
    request = case.case.get("request")
    rate = request.get("frame_rate") if isinstance(request, dict) else None
    return min(max(float(rate), _SLOWEST), _FASTEST) if isinstance(rate, int | float) and rate == rate else 8.0
