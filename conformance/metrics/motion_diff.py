from __future__ import annotations

from conformance.metrics.edges import abs_diff
from conformance.metrics.pairs import MotionPair
from conformance.metrics.registry import register
from conformance.metrics.tiles import total


@register("motion_diff", kind="motion", better="lower", unit="levels")
def motion_diff(pair: MotionPair) -> float:
    """Difference of the amounts of motion, without its sign; the amount is the mean absolute change from the frame
    before. A frozen frame has none, whatever its content."""
    if pair.now.equal and pair.before.equal:
        return 0.0
    mine, theirs = (
        total(abs_diff(now, before).reshape(len(now), -1))
        for now, before in (
            (pair.now.candidate, pair.before.candidate),
            (pair.now.reference, pair.before.reference),
        )
    )
    return abs(mine - theirs) / pair.now.candidate.size
