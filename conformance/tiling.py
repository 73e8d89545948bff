"""How a request has the video decoded in tiles."""

from __future__ import annotations

from dataclasses import dataclass

from conformance.checked import Checked
from conformance.errors import bad_field


@dataclass(frozen=True, kw_only=True)
class Tiles(Checked):
    """Tiles of ``size`` along one axis of the output, one every ``stride``, in pixels or frames.

    ``size - stride`` is what two neighbours share and blend linearly.
    """

    size: int
    stride: int

    def _validate(self, where: str) -> None:
        if not 0 < self.stride <= self.size:
            raise bad_field(where, "stride", self.stride, f"within [1, size], which is {self.size}")


@dataclass(frozen=True, kw_only=True)
class VideoTiling(Checked):
    """Tiles of the video VAE's decoder, in whole latents: 32 pixels, 8 frames. None leaves an axis whole.

    rows, columns: given together; used where either is longer than its tile. frames: used where the clip's latents are
    longer than a tile.
    """

    rows: Tiles | None
    columns: Tiles | None
    frames: Tiles | None

    def _validate(self, where: str) -> None:
        if (self.rows is None) != (self.columns is None):
            raise bad_field(where, "columns", self.columns, "tiles exactly when rows have some")
        if self.rows is None and self.frames is None:
            raise bad_field(where, "frames", self.frames, "tiles along one axis at least")
        for name, unit in (("rows", 32), ("columns", 32), ("frames", 8)):
            tiles = getattr(self, name)
            if tiles is not None and (tiles.size % unit or tiles.stride % unit):
                value = (tiles.size, tiles.stride)
                raise bad_field(where, name, value, f"a size and a stride that are multiples of {unit}")
