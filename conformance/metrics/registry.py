"""What a metric is, and the registry that every file of this package adds one metric to."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["frame", "motion", "latent", "audio", "stereo"]
Better = Literal["higher", "lower"]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A distance or similarity with a direction.

    name: as in results and thresholds (``ssim``, ``latents.rel_l2``, ``audio.correlation``). unit: of the value,
    empty for a ratio. function: takes what its kind has, a ``FramePair``, a ``MotionPair`` (two successive frames),
    two tensors of equal shape (candidate, reference) for ``latent``, an ``AudioPair`` (one channel) or a
    ``StereoPair`` (all channels); returns a float and raises InputError when the metric is not defined for it.
    """

    name: str
    kind: Kind
    better: Better
    unit: str
    doc: str
    function: Callable[..., float]

    @property
    def sign(self) -> str:
        return ">=" if self.better == "higher" else "<="

    def holds(self, value: float, limit: float) -> bool:
        """Whether ``value`` keeps ``limit``, inclusive. NaN keeps none."""
        return value >= limit if self.better == "higher" else value <= limit

    def worst(self, values: Sequence[float]) -> int:
        """Index of the worst of ``values`` (at least one); NaN is worse than any number."""
        for index, value in enumerate(values):
            if math.isnan(value):
                return index
        choose = min if self.better == "higher" else max
        return choose(range(len(values)), key=values.__getitem__)


REGISTRY: dict[str, Metric] = {}


def register(name: str, *, kind: Kind, better: Better, unit: str = "") -> Callable[[Any], Any]:
    """Decorator: add a function to ``REGISTRY`` under ``name``; its docstring is the metric's description."""

    def add(function: Callable[..., float]) -> Callable[..., float]:
        if name in REGISTRY:
            raise ValueError(f"metric {name!r} is registered twice")
        doc = " ".join((function.__doc__ or "").split())
        REGISTRY[name] = Metric(name=name, kind=kind, better=better, unit=unit, doc=doc, function=function)
        return function

    return add
