"""One limit of one metric, and where it may lie between the noise floor and the smallest guarded defect."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from conformance.errors import InputError, bad_field
from thresholds.fields import fields, finite, text


def higher_is_better(metric: str, where: str) -> bool:
    """The metric's direction. InputError when the harness does not measure it."""
    from conformance.metrics import REGISTRY  # lazily: it pulls in the metrics' own dependencies

    if metric not in REGISTRY:
        raise InputError(f"{where}: unknown metric; expected one of {sorted(REGISTRY)}")
    return REGISTRY[metric].better == "higher"


def loosest(metric: str, higher: bool, defect: float) -> float:
    """The loosest limit that a defect of this value allows: half of the defect's distance from a perfect match.

    Lower-is-better metrics are 0 for a match. Of the others PSNR is infinite: half the error is 20 log10(2) dB more.
    The rest are similarities, 1 for a match.
    """
    if not higher:
        return defect / 2
    return defect + 20 * math.log10(2) if metric == "psnr" else (1 + defect) / 2


@dataclass(frozen=True, kw_only=True)
class Bound:
    """limit (inclusive), noise_floor and defect_value are in the metric's unit; defect names the smallest guarded one.

    noise_floor may be infinite: the PSNR of runs that agree bit for bit.
    """

    metric: str
    limit: float
    noise_floor: float
    defect: str
    defect_value: float

    def check(self, where: str) -> None:
        """InputError unless the limit is worse than the floor and no looser than ``loosest``."""
        higher = higher_is_better(self.metric, where)
        if not higher and not 0 <= self.noise_floor < math.inf:
            raise bad_field(where, "noise_floor", self.noise_floor, "finite and at least 0")
        allowed = loosest(self.metric, higher, self.defect_value)
        if higher:
            inside = max(allowed, self.defect_value) <= self.limit < self.noise_floor
            expected = f"at least {allowed!r} (half of defect {self.defect!r}) and below the floor {self.noise_floor!r}"
        else:
            inside = self.noise_floor < self.limit <= allowed
            expected = f"above the floor {self.noise_floor!r} and at most {allowed!r} (half of defect {self.defect!r})"
        if not inside or self.limit == self.defect_value:
            raise bad_field(where, "limit", self.limit, expected)

    def as_dict(self) -> dict[str, Any]:
        return {
            "limit": self.limit,
            "noise_floor": self.noise_floor,
            "smallest_defect": {"name": self.defect, "value": self.defect_value},
        }


def parse_bound(metric: str, data: Any, where: str) -> Bound:
    """The inverse of ``Bound.as_dict``. InputError on anything else, and on a limit outside its interval."""
    item = fields(data, ("limit", "noise_floor", "smallest_defect"), where)
    defect = fields(item["smallest_defect"], ("name", "value"), f"{where}, smallest_defect")
    bound = Bound(
        metric=metric,
        limit=finite(item["limit"], where, "limit"),
        noise_floor=finite(item["noise_floor"], where, "noise_floor", infinite=True),
        defect=text(defect["name"], f"{where}, smallest_defect", "name"),
        defect_value=finite(defect["value"], f"{where}, smallest_defect", "value"),
    )
    bound.check(where)
    return bound
