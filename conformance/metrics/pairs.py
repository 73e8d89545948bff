"""What metrics of frames, motion and sound are given: two sides, and what several metrics share.

Shapes: H, W (pixels), C (channels), N (audio samples).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

import numpy as np

from conformance.errors import InputError
from conformance.metrics.colour import moments
from conformance.metrics.edges import Edges, abs_diff
from conformance.metrics.structural import WINDOW, ssim_tile_sums
from conformance.metrics.tiles import tile_counts, tile_sums

if TYPE_CHECKING:
    from conformance.metrics.clip import ClipScorer

TILE = 32
T = TypeVar("T")


class Shared(Generic[T]):
    """A property computed once. functools.cached_property of Python 3.11 holds one lock for all instances, which would
    let threads wait for each other; a pair belongs to one thread."""

    def __init__(self, function: Callable[[Any], T]) -> None:
        self.function, self.__doc__ = function, function.__doc__

    @overload
    def __get__(self, instance: None, owner: type) -> Shared[T]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> T: ...
    def __get__(self, instance: object | None, owner: type) -> Shared[T] | T:
        if instance is None:
            return self
        value = self.function(instance)
        instance.__dict__[self.function.__name__] = value  # found before this descriptor from now on
        return value


@dataclass(frozen=True, eq=False)
class FramePair:
    """Two uint8 frames [H,W,3] of equal shape, and the CLIP model where there is one."""

    candidate: np.ndarray
    reference: np.ndarray
    clip: ClipScorer | None = None

    @Shared
    def equal(self) -> bool:
        return np.array_equal(self.candidate, self.reference)

    @Shared
    def abs_diff_HW3(self) -> np.ndarray:
        """Absolute difference in levels 0..255, uint8."""
        return abs_diff(self.candidate, self.reference)

    @Shared
    def abs_diff_counts(self) -> np.ndarray:
        """How many values differ by 0, 1, ... 255 levels: int64 [256]."""
        return np.bincount(self.abs_diff_HW3.ravel(), minlength=256)

    @Shared
    def planes(self) -> tuple[np.ndarray, np.ndarray]:
        """The candidate and the reference colour by colour, uint8 [3,H,W]."""
        mine, theirs = (np.ascontiguousarray(side.transpose(2, 0, 1)) for side in (self.candidate, self.reference))
        return mine, theirs

    @Shared
    def colours(self) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
        """Mean and spread of the colours of the candidate and of the reference, see ``metrics.colour``."""
        return moments(self.planes[0]), moments(self.planes[1])

    @Shared
    def profiles(self) -> tuple[np.ndarray, np.ndarray]:
        """Signed difference averaged along rows [3,H] and along columns [3,W], in levels, float64."""
        mine, theirs = self.planes
        height, width = mine.shape[1:]
        rows, columns = (mine.sum(axis=axis, dtype=np.int64) - theirs.sum(axis=axis, dtype=np.int64) for axis in (2, 1))
        return rows / width, columns / height

    @Shared
    def edges(self) -> tuple[Edges, Edges]:
        """Steps between neighbouring pixels of the candidate and of the reference."""
        return Edges.of(self.planes[0]), Edges.of(self.planes[1])

    @Shared
    def edge_tiles(self) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
        """Energy of the steps down and to the right, tile by tile, of the candidate and of the reference."""
        return self.edges[0].energies, self.edges[1].energies

    @Shared
    def ssim_tiles(self) -> np.ndarray:
        """Mean of scikit-image's SSIM map over tiles of 32x32 pixels, see ``metrics.tiles``, where the window fits.

        InputError when a side of the frame is shorter than the window.
        """
        height, width = self.candidate.shape[:2]
        if min(height, width) < WINDOW:
            raise InputError(f"ssim: a frame is {height}x{width}; expected at least {WINDOW}x{WINDOW} pixels")
        counts = self.ssim_tile_counts
        if self.equal:
            return np.ones(counts.shape)  # the numerator is the denominator
        return ssim_tile_sums(self.candidate, self.reference, TILE) / counts

    @Shared
    def ssim_tile_counts(self) -> np.ndarray:
        """Values in each of ``ssim_tiles``."""
        height, width = self.candidate.shape[:2]
        return 3 * tile_counts(height - WINDOW + 1, width - WINDOW + 1, TILE)


@dataclass(frozen=True, eq=False)
class MotionPair:
    """Two successive frames of one output, both sides of each."""

    now: FramePair
    before: FramePair


def tile_means(values_HW3: np.ndarray, size: int = TILE) -> np.ndarray:
    """Mean of a uint8 frame over pixels and colours of each tile, see ``metrics.tiles``."""
    height, width = values_HW3.shape[:2]
    sums = tile_sums(values_HW3.reshape(height, width * 3), size, size * 3)
    return sums / (3 * tile_counts(height, width, size))


@dataclass(frozen=True, eq=False)
class AudioPair:
    """One channel of two waveforms, float32 [N] each (the lengths may differ), at ``rate`` Hz."""

    candidate: np.ndarray
    reference: np.ndarray
    rate: int

    @Shared
    def common(self) -> tuple[np.ndarray, np.ndarray]:
        """Both sides in float64, cut to the shorter one. InputError when a side is empty."""
        length = min(len(self.candidate), len(self.reference))
        if not length:
            raise InputError(f"audio: {len(self.candidate)} and {len(self.reference)} samples; expected at least 1")
        return self.candidate[:length].astype(np.float64), self.reference[:length].astype(np.float64)


@dataclass(frozen=True, eq=False)
class StereoPair:
    """All channels of two waveforms, float32 [C,N] each with two channels or more (the lengths may differ)."""

    candidate: np.ndarray
    reference: np.ndarray
    rate: int
