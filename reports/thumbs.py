"""Thumbnails that travel inside the report, under one budget of bytes."""

from __future__ import annotations

import base64
import io
import warnings
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from reports.text import inside

PAGE_BYTES = 12_000_000  # base64 characters of all thumbnails of one page
LEFT_OUT = "left out to keep this page small"


@dataclass(frozen=True)
class Thumb:
    """An embedded picture: ``uri`` (empty when there is none, then ``problem`` says why) and its size in pixels."""

    uri: str
    width: int
    height: int
    problem: str = ""


class Budget:
    """Hands out the page's bytes. A case's share grows with its weight; what it leaves goes to the next ones."""

    def __init__(self, total: int, weights: list[int]) -> None:
        self._left = total
        self._weights = list(weights)
        self._share = 0

    def next_case(self) -> None:
        """Open the next case's share, in the order of the weights."""
        self._share = self._left * self._weights[0] // max(1, sum(self._weights))
        self._weights.pop(0)

    @property
    def spent(self) -> bool:
        """Whether something did not fit the open share any more: then no further picture need be made for it."""
        return self._share <= 0

    def take(self, size: int) -> bool:
        """Whether ``size`` bytes still fit the open share; they are spent when they do, and it is closed when not."""
        if size > self._share:
            self._share = 0
            return False
        self._share -= size
        self._left -= size
        return True


def thumb(root: Path, path: str, longest: int, budget: Budget) -> Thumb:
    """The picture at ``path`` under ``root``, its longer side at most ``longest`` pixels, or why there is none."""
    file = inside(root, path)
    if file is None:
        return Thumb("", 0, 0, "file missing")
    if budget.spent:
        return Thumb("", 0, 0, LEFT_OUT)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file) as image:
                size = image.size
                image.thumbnail((longest, longest))
                small = image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return Thumb("", 0, 0, "file cannot be read as an image")
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", lossless=max(size) <= longest // 2, quality=82, method=2)
    uri = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
    if not budget.take(len(uri)):
        return Thumb("", *size, LEFT_OUT)
    return Thumb(uri, *size)
