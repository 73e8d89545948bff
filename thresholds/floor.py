"""The noise floor's evidence: what each side gave under changes that must not matter, grouped by outcome."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from conformance.errors import bad_field
from thresholds.fields import fields, finite, listed, names, text

MIN_SAMPLES = 5
METRIC = "latents.rel_l2"  # what distances between samples are given in
SIDES = ("engine", "reference")
_FINGERPRINT = re.compile("[0-9a-f]{12}")


@dataclass(frozen=True, kw_only=True)
class Spread:
    """One side on one device: the cohort of its samples.

    modes: samples by outcome, (fingerprint, names of the samples) each: equal fingerprints are equal bits. repeats and
    changes: worst ``METRIC`` from the baseline (the reference, unchanged, in a fresh process on the first device) among
    the samples under unchanged conditions, and among all.
    """

    side: str
    device: str
    modes: tuple[tuple[str, tuple[str, ...]], ...]
    repeats: float
    changes: float

    @property
    def samples(self) -> int:
        return sum(len(found) for _, found in self.modes)

    def as_dict(self) -> dict[str, Any]:
        return {
            "side": self.side,
            "device": self.device,
            "repeats": self.repeats,
            "changes": self.changes,
            "modes": [{"fingerprint": mark, "samples": list(found)} for mark, found in self.modes],
        }


def modes(fingerprints: Mapping[str, str]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Samples (name -> fingerprint) by outcome, the largest group first."""
    found: dict[str, list[str]] = {}
    for name, mark in fingerprints.items():
        found.setdefault(mark, []).append(name)
    return tuple(sorted(((mark, tuple(each)) for mark, each in found.items()), key=lambda mode: -len(mode[1])))


def parse_floor(data: Any, where: str) -> tuple[Spread, ...]:
    """InputError unless every cohort has enough samples and both sides are there."""
    spreads = tuple(_spread(item, f"{where}[{i}]") for i, item in enumerate(listed(data, where, "floor")))
    for side in SIDES:
        if side not in [spread.side for spread in spreads]:
            raise bad_field(where, "floor", [spread.side for spread in spreads], f"a cohort of each side, {SIDES}")
    cohorts = [(spread.side, spread.device) for spread in spreads]
    if len(set(cohorts)) != len(cohorts):
        raise bad_field(where, "floor", cohorts, "each cohort once")
    return spreads


def _spread(data: Any, where: str) -> Spread:
    item = fields(data, ("side", "device", "repeats", "changes", "modes"), where)
    if item["side"] not in SIDES:
        raise bad_field(where, "side", item["side"], f"one of {SIDES}")
    found = []
    for i, each in enumerate(listed(item["modes"], where, "modes")):
        mode = fields(each, ("fingerprint", "samples"), f"{where}.modes[{i}]")
        mark = text(mode["fingerprint"], f"{where}.modes[{i}]", "fingerprint")
        if not _FINGERPRINT.fullmatch(mark):
            raise bad_field(f"{where}.modes[{i}]", "fingerprint", mark, "12 hexadecimal digits")
        found.append((mark, names(mode["samples"], f"{where}.modes[{i}]", "samples")))
    for field, every in (("fingerprint", [mark for mark, _ in found]), ("samples", [n for _, s in found for n in s])):
        if len(set(every)) != len(every):
            raise bad_field(f"{where}.modes", field, every, "each once")
    spread = Spread(
        side=item["side"],
        device=text(item["device"], where, "device"),
        modes=tuple(found),
        repeats=finite(item["repeats"], where, "repeats"),
        changes=finite(item["changes"], where, "changes"),
    )
    if spread.samples < MIN_SAMPLES or not all(samples for _, samples in found):
        raise bad_field(where, "modes", spread.samples, f"at least {MIN_SAMPLES} samples, and one in every mode")
    if not 0 <= spread.repeats <= spread.changes:
        raise bad_field(where, "repeats", spread.repeats, f"within [0, {spread.changes!r}], the worst of all changes")
    return spread
