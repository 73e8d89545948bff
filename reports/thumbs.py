"""Thumbnails that travel inside the report, under one budget of bytes."""

from __future__ import annotations

import base64
import io
import warnings
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from reports.text import inside

PAGE_BYTES = 11_000_000  # base64 characters of all thumbnails of one page
WORD_BYTES = 4_000_000  # characters of all frames' links and numbers
LEFT_OUT = "left out to keep this page small"


@dataclass(frozen=True)
class Thumb:
    """An embedded picture: ``uri`` (empty when there is none, then ``problem`` says why) and its size in pixels."""

    uri: str
    width: int
    height: int
    problem: str = ""


class Budget:
    """Hands out the page's bytes. A case's share grows with its weight; what it leaves goes to the next ones.

    Pictures and the words of the frames (links, numbers) have budgets of their own.
    """

    def __init__(self, total: int, weights: list[int], words: int = WORD_BYTES) -> None:
        self._total, self._left, self._words_left = total, total, words
        self._weights = list(weights)
        self._share = self._words = 0

    def next_case(self) -> None:
        """Open the next case's share, in the order of the weights."""
        every, own = max(1, sum(self._weights)), self._weights.pop(0)
        self._share, self._words = self._left * own // every, self._words_left * own // every

    @property
    def used(self) -> int:
        """Bytes of all pictures so far."""
        return self._total - self._left

    @property
    def share(self) -> int:
        """What is left of the open share, in bytes."""
        return self._share

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

    def take_words(self, size: int) -> bool:
        """``take`` of the budget for words."""
        if size > self._words:
            return False
        self._words -= size
        self._words_left -= size
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
    return embed(small, budget, size=size, lossless=max(size) <= longest // 2)


def embed(
    picture: Image.Image, budget: Budget, *, size: tuple[int, int] | None = None, lossless: bool = False
) -> Thumb:
    """An RGB picture as a thumbnail, if the budget allows. size: of what it stands for (default: its own)."""
    size = size or picture.size
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", lossless=lossless, quality=82, method=2)
    uri = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
    if not budget.take(len(uri)):
        return Thumb("", *size, LEFT_OUT)
    return Thumb(uri, *size)
