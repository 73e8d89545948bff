"""Plots as inline SVG: no script, no fonts, colours from the style sheet (both colour schemes)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from conformance.results import StepResult
from reports.text import number

WIDTH, HEIGHT = 640, 220
LEFT, RIGHT, TOP, BOTTOM = 62, 16, 14, 34
ZERO_GAP = 0.18  # room between the lowest decade and the line for 0, as a share of the decades' height


@dataclass(frozen=True)
class Level:
    """A horizontal line of a plot. kind: ``limit``, ``floor`` (the band under it is noise) or ``defect``."""

    kind: str
    value: float
    words: str


def step_plot(steps: Sequence[StepResult], levels: Sequence[Level] = ()) -> Markup:
    """Relative L2 of the latents over the steps, log10 axis, one line a stream; empty when there is nothing to draw.

    A value of exactly 0 has no place on a log axis: it is drawn hollow on the axis line marked ``0``. A value that
    is not finite is a cross at the top. Levels that are no positive number are left out.
    """
    levels = [level for level in levels if math.isfinite(level.value) and level.value > 0]
    streams = {
        name: [(entry.step, value) for entry in steps if (value := getattr(entry, name)) is not None]
        for name in ("video", "audio")
    }
    streams = {name: points for name, points in streams.items() if points}
    if not streams:
        return Markup()
    values = [value for points in streams.values() for _, value in points]
    low, high = _decades([*values, *(level.value for level in levels)])
    first, last = min(entry.step for entry in steps), max(entry.step for entry in steps)

    def x_of(step: int) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * ((step - first) / (last - first) if last > first else 0.5)

    def y_at(exponent: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - exponent) / (high - low) / (1 + ZERO_GAP)

    def y_of(value: float) -> float:
        if not math.isfinite(value):
            return float(TOP)
        return y_at(math.log10(value)) if value > 0 else float(HEIGHT - BOTTOM)

    parts = [*_axes(low, high, y_at), *_step_labels(first, last, x_of)]
    parts[:0] = [_band(y_of(level.value)) for level in levels if level.kind == "floor"]
    for level in levels:
        y = y_of(level.value)
        text = f"{level.words} {number(level.value)}"
        parts.append(f'<line class="{level.kind}" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        beside = y + 12 if level.kind == "floor" else y - 4  # the floor's words stand in its band
        place = f'x="{WIDTH - RIGHT - 6}" y="{beside:.1f}" text-anchor="end"'
        parts.append(f'<text class="{level.kind}" {place}>{escape(text)}</text>')
    for name, points in streams.items():
        path = " ".join(f"{x_of(step):.1f},{y_of(value):.1f}" for step, value in points if math.isfinite(value))
        parts.append(f'<polyline class="{name}" points="{path}"/>')
        parts += [_mark(name, step, value, x_of(step), y_of(value)) for step, value in points]
    spoken = "; ".join(f"{name} ends at {number(points[-1][1])}" for name, points in streams.items())
    return Markup(
        f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="Relative L2 of the latents per step, logarithmic: {spoken}">{"".join(parts)}</svg>'
    )


def _band(y: float) -> str:
    """What legal changes reach: from the axis up to the noise floor."""
    return (
        f'<rect class="band" x="{LEFT}" y="{y:.1f}" width="{WIDTH - LEFT - RIGHT}" height="{HEIGHT - BOTTOM - y:.1f}"/>'
    )


def _decades(values: Sequence[float]) -> tuple[int, int]:
    """Exponents of the decades around the positive finite values; at least one decade apart."""
    logs = [math.log10(value) for value in values if value > 0 and math.isfinite(value)]
    if not logs:
        return -8, 0
    low, high = math.floor(min(logs)), math.ceil(max(logs))
    return low, max(high, low + 1)


def _axes(low: int, high: int, y_at: Callable[[float], float]) -> list[str]:
    parts = []
    stride = max(1, math.ceil((high - low) / 6))
    for exponent in range(low, high + 1, stride):
        y = y_at(exponent)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">1e{exponent}</text>')
    y = HEIGHT - BOTTOM
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
    parts.append(f'<text x="{LEFT - 8}" y="{y + 4}" text-anchor="end">0</text>')
    return parts


def _step_labels(first: int, last: int, x_of: Callable[[int], float]) -> list[str]:
    stride = max(1, math.ceil((last - first) / 10))
    shown = [step for step in range(first, last, stride) if last - step >= stride / 2]
    texts = [(step, str(step)) for step in shown] + [(last, "final")]
    return [f'<text x="{x_of(step):.1f}" y="{HEIGHT - 12}" text-anchor="middle">{text}</text>' for step, text in texts]


def _mark(name: str, step: int, value: float, x: float, y: float) -> str:
    title = f"<title>{name}, step {step}: {number(value)}</title>"
    if not math.isfinite(value):
        return f'<path class="{name} cross" d="M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8">{title}</path>'
    kind = "hollow" if value == 0 else "dot"
    return f'<circle class="{name} {kind}" cx="{x:.1f}" cy="{y:.1f}" r="3.5">{title}</circle>'
