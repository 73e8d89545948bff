"""The grid of tiles over a difference: the tiles of the tile metrics, the worst one outlined."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from conformance.errors import InputError
from conformance.media import read_image
from conformance.metrics.pairs import TILE, FramePair, tile_means
from conformance.results import FrameResult
from reports.text import inside, number


@dataclass(frozen=True)
class Tiles:
    """``grid`` is an SVG path in pixels of the frame; ``x`` to ``height`` place the worst tile, ``words`` name it."""

    frame_width: int
    frame_height: int
    grid: str
    x: int
    y: int
    width: int
    height: int
    words: str


def tiles(root: Path, frame: FrameResult) -> Tiles | None:
    """The grid of one frame, or None when its two pictures cannot be laid over each other or are equal."""
    files = [inside(root, path) for path in (frame.candidate, frame.reference)]
    if files[0] is None or files[1] is None:
        return None
    try:
        pair = FramePair(read_image(files[0]), read_image(files[1]))
    except InputError:
        return None
    if pair.candidate.shape != pair.reference.shape or np.array_equal(pair.candidate, pair.reference):
        return None
    height, width = pair.candidate.shape[:2]
    means = tile_means(pair.abs_diff_HW3)
    row, column = (int(place) for place in np.unravel_index(means.argmax(), means.shape))
    x, y = column * TILE, row * TILE
    lines = [f"M{at} 0V{height}" for at in range(TILE, width, TILE)]
    lines += [f"M0 {at}H{width}" for at in range(TILE, height, TILE)]
    return Tiles(
        frame_width=width,
        frame_height=height,
        grid="".join(lines),
        x=x,
        y=y,
        width=min(TILE, width - x),
        height=min(TILE, height - y),
        words=f"Worst tile of {TILE} × {TILE} pixels: {number(float(means[row, column]))} levels at x {x}, y {y}",
    )
