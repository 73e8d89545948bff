from __future__ import annotations

import math

import numpy as np

from conformance.metrics.pairs import StereoPair
from conformance.metrics.registry import register

NO_SIDE = 1e-4  # of the loudness, -80 dB: below it there is nothing to hear between two channels


@register("audio.side_correlation", kind="stereo", better="higher")
def side_correlation(pair: StereoPair) -> float:
    """Cosine between the two sides' differences of neighbouring channels, the worst pair of channels: -1 when they
    are swapped, however alike they are. 1 where neither side has a difference above -80 dB, 0 where one has none."""
    length = min(pair.candidate.shape[-1], pair.reference.shape[-1])
    mine, theirs = (side[:, :length].astype(np.float64) for side in (pair.candidate, pair.reference))
    return min((_cosine(mine[c : c + 2], theirs[c : c + 2]) for c in range(len(mine) - 1)), key=_nan_first)


def _nan_first(value: float) -> float:
    return -math.inf if math.isnan(value) else value


def _cosine(mine_2N: np.ndarray, theirs_2N: np.ndarray) -> float:
    a, b = mine_2N[0] - mine_2N[1], theirs_2N[0] - theirs_2N[1]
    aa, bb = float(a @ a), float(b @ b)
    silent = [
        side_energy <= NO_SIDE**2 * float((side * side).sum()) for side_energy, side in ((aa, mine_2N), (bb, theirs_2N))
    ]
    if any(silent):
        return 1.0 if all(silent) else 0.0
    value = float(a @ b) / math.sqrt(aa * bb)
    return value if math.isnan(value) else max(-1.0, min(1.0, value))
