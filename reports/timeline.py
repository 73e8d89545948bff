"""Metrics over the frames of one output as inline SVG: a line a metric, the worst frame marked."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup, escape

from conformance.results import FrameResult
from reports.labels import metric_label
from reports.text import number

WIDTH, ROW, PAD = 640, 44, 10
LEFT, RIGHT = 168, 72
_DOTTED = 48  # frames up to which every one has a dot


def timeline(frames: Sequence[FrameResult], names: Sequence[str], worst: FrameResult | None) -> Markup:
    """One row a metric, one column a frame, in the order given; empty for fewer than two frames or no metric.

    Values that are not finite are drawn at the row's upper edge. Frames without a value (given ones) leave a gap.
    """
    names = [name for name in names if any(name in frame.metrics for frame in frames)]
    if len(frames) < 2 or not names:
        return Markup()
    parts = []
    for row, name in enumerate(names):
        parts += _row(frames, name, worst, row * ROW)
    height = len(names) * ROW + 14
    parts.append(f'<text x="{LEFT}" y="{height - 2}">frame {frames[0].index}</text>')
    last = f'<text x="{WIDTH - RIGHT}" y="{height - 2}" text-anchor="end">frame {frames[-1].index}</text>'
    parts += [last, f'<line class="cursor" x1="{LEFT}" x2="{LEFT}" y1="0" y2="{height - 14}" visibility="hidden"/>']
    spoken = f"worst is frame {worst.index}" if worst in frames and worst is not None else f"{len(frames)} frames"
    return Markup(
        f'<svg class="plot timeline" viewBox="0 0 {WIDTH} {height}" role="img" data-left="{LEFT}" '
        f'data-right="{WIDTH - RIGHT}" aria-label="Metrics over the frames: {spoken}">{"".join(parts)}</svg>'
    )


def _row(frames: Sequence[FrameResult], name: str, worst: FrameResult | None, top: int) -> list[str]:
    values = [frame.metrics.get(name) for frame in frames]
    finite = [value for value in values if value is not None and math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    bottom, room = top + ROW - PAD, ROW - 2 * PAD

    def at(place: int) -> tuple[float, float] | None:
        value = values[place]
        if value is None:
            return None
        share = 1.0 if not math.isfinite(value) else 0.5
        if math.isfinite(value) and high != low:
            share = (value / 2 - low / 2) / (high / 2 - low / 2)  # halves: a difference of floats can be infinite
        return LEFT + (WIDTH - LEFT - RIGHT) * place / (len(frames) - 1), bottom - room * share

    points = [at(place) for place in range(len(frames))]
    parts = [
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{bottom}" y2="{bottom}"/>',
        f'<text x="{LEFT - 12}" y="{bottom}" text-anchor="end">{escape(metric_label(name))}</text>',
        f'<text x="{WIDTH - RIGHT + 8}" y="{top + PAD + 4}">{number(high)}</text>',
        *([f'<text x="{WIDTH - RIGHT + 8}" y="{bottom + 4}">{number(low)}</text>'] if high != low else []),
    ]
    pen = ""
    for before, point in zip([None, *points], points, strict=False):
        pen += "" if point is None else f"{'L' if before else 'M'}{point[0]:.1f} {point[1]:.1f}"
    parts.append(f'<path class="video" d="{pen}"/>')
    if len(frames) <= _DOTTED:
        parts += [f'<circle class="dot video" cx="{x:.1f}" cy="{y:.1f}" r="2"/>' for x, y in filter(None, points)]
    marked = points[list(frames).index(worst)] if worst in frames and worst is not None else None
    if marked is not None:
        parts.append(f'<circle class="worst" cx="{marked[0]:.1f}" cy="{marked[1]:.1f}" r="4.5"/>')
    return parts
