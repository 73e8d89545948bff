"""From measured noise and measured damage to limits. Pure.

Per metric, as distances from a perfect match:

- floor: the largest distance among the noise samples, whichever mode they fall in (a maximum, no average over modes);
- the metric guards a defect when half of the defect's distance is more than ``margin`` times the floor;
- the limit is the geometric mean of the floor and half of the smallest guarded defect's distance (a quarter of that
  distance where the floor is below the metric's grain).

A metric that guards nothing gets no limit. A case whose metrics all guard nothing gets none, and a reason.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from conformance.metrics import REGISTRY
from thresholds.battery import Damage
from thresholds.bounds import Bound, loosest
from thresholds.floor import METRIC, Spread
from thresholds.noise import Values

# The rest are shown, not judged: what they see is seen by these, or one value moves them too much between legal runs.
JUDGED = (
    "latents.rel_l2",
    "latents.norm_error",
    "latents.worst_channel",
    "latents.worst_token",
    "latents.coarse_share",
    "ssim",
    "psnr",
    "mean_abs_diff",
    "tile_ssim",
    "tile_mean_abs_diff",
    "grid_8",
    "seam_step",
    "edge_energy_db",
    "colour_mean",
    "temporal_diff",
    "audio.correlation",
    "audio.log_spectral_distance",
    "audio.rms_db",
    "audio.window_level_db",
    "audio.side_correlation",
    "audio.clipped_share",
)

# One number of a whole picture, waveform or state, without its sign: by chance near zero in a few legal runs.
SCALARS = (
    "latents.norm_error",
    "grid_8",
    "seam_step",
    "edge_energy_db",
    "colour_mean",
    "audio.rms_db",
    "audio.window_level_db",
)
# Smaller distances count as this: below it are a metric's own rounding and, of shares, a few elements.
GRAIN = 1e-9
SHARES = {"latents.coarse_share": 0.02, "audio.clipped_share": 0.005}


def margin(metric: str) -> float:
    """How many floors fit, at least, into half of a defect that the metric guards."""
    return 4.0 if metric in SCALARS else 2.0


def limits(noise: Sequence[Values], damage: Mapping[str, Damage]) -> tuple[Bound, ...]:
    """The limits of one case."""
    bounds = []
    for metric in JUDGED:
        floor = [values[metric] for values in noise if metric in values]
        defects = {name: found.values[metric] for name, found in damage.items() if metric in found.values}
        made = bound(metric, floor, defects)
        if made is not None:
            bounds.append(made)
    return tuple(bounds)


def bound(metric: str, noise: Sequence[float], defects: Mapping[str, float]) -> Bound | None:
    """The limit of a metric by the rule above, or None when it guards nothing or was not measured."""
    if not noise or any(math.isnan(value) for value in noise):
        return None
    floor = max(noise, key=lambda value: distance(metric, value))
    grain = SHARES.get(metric, GRAIN)
    base = max(distance(metric, floor), grain)
    higher = REGISTRY[metric].better == "higher"
    halves = {name: distance(metric, loosest(metric, higher, value)) for name, value in defects.items()}
    guarded = {name: half for name, half in halves.items() if math.isfinite(half) and half > margin(metric) * base}
    if not guarded:
        return None
    name = min(guarded, key=guarded.__getitem__)
    limit = math.sqrt(base * guarded[name]) if base > grain else guarded[name] / 2
    return Bound(
        metric=metric,
        limit=value_at(metric, limit),
        noise_floor=floor,
        defect=name,
        defect_value=defects[name],
    )


def why_none(spreads: Sequence[Spread], damage: Mapping[str, Damage]) -> str:
    """The reason of a case that gets no limit: how far its legal outcomes lie apart, and what that hides."""
    parts = [
        f"{spread.side} on {spread.device}: {len(spread.modes)} outcomes ("
        + ", ".join(f"{len(samples)} of {mark}" for mark, samples in spread.modes[:3])
        + (", ..." if len(spread.modes) > 3 else "")
        + f"), repeats {spread.repeats:.2g} and legal changes {spread.changes:.2g} from the baseline"
        for spread in spreads
    ]
    seen = {name: found.values[METRIC] for name, found in damage.items() if found.values.get(METRIC)}
    largest = max(seen, key=seen.__getitem__, default="")
    last = f"the largest defect, {largest!r}, is at {seen[largest]:.2g}" if largest else "no defect was measured"
    return f"no metric leaves room between noise and half of a defect ({METRIC}; {'; '.join(parts)}; {last})"


def distance(metric: str, value: float) -> float:
    """How far a value is from a perfect match, on a scale where twice as bad is twice the number."""
    if REGISTRY[metric].better == "lower":
        return value
    return 10 ** (-value / 20) if metric == "psnr" else 1 - value


def value_at(metric: str, far: float) -> float:
    """The inverse of :func:`distance`."""
    if REGISTRY[metric].better == "lower":
        return far
    return -20 * math.log10(far) if metric == "psnr" else 1 - far
