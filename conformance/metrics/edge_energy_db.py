from __future__ import annotations

import math

from conformance.metrics.pairs import FramePair
from conformance.metrics.registry import register


@register("edge_energy_db", kind="frame", better="lower", unit="dB")
def edge_energy_db(pair: FramePair) -> float:
    """Ratio of the energies of the edges (squared differences of neighbouring pixels) in dB, without its sign: blur
    and noise. Infinite when one side alone has no edges."""
    mine, theirs = (sum(int(tiles.sum()) for tiles in side) for side in pair.edge_tiles)
    if mine == theirs:
        return 0.0
    return abs(10 * math.log10(mine / theirs)) if mine and theirs else math.inf
