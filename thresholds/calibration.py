"""Calibration of one case, in a process of its own: noise, battery, limits, and the entry that holds them."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

import torch

from conformance import environment
from conformance.case import Case
from conformance.pool import Report
from thresholds import battery, noise, proposal
from thresholds.evidence import Evidence
from thresholds.schema import Entry

METHOD = (
    "floor: worst of any outcome of either side against any of the reference: fresh and used processes, other thread"
    " counts, memory alignment, attention kernels, batch neighbours, all together, and (engine) CFG pair or sequential,"
    " timestep per batch or token, token memory, text mask; limit: geometric mean of the floor and half of the smallest"
    " guarded defect"
)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What to calibrate. folder: the checkpoint. samples: fewest a cohort."""

    case: Case
    folder: str
    device: str
    samples: int
    owner: str


def calibrate(asked: Calibration, report: Report) -> Entry:
    """Measure a case and propose its limits: the target of a pool's task."""
    case, folder = asked.case, Path(asked.folder)
    torch.set_num_threads(1)
    found = noise.measure(case, folder, asked.device, asked.samples, report)
    engine = noise.engine(folder, asked.device)
    damage = dict(battery.damages(case, engine, found.reference, report))
    return entry(asked, found, damage)


def entry(asked: Calibration, found: noise.Noise, damage: dict[str, battery.Damage]) -> Entry:
    """The case's entry from what was measured."""
    bounds = proposal.limits(found.values, damage)
    limits = {bound.metric: bound.limit for bound in bounds}
    by = {name: battery.caught(each, limits) for name, each in damage.items()}
    versions = environment.versions()
    packages = ("torch", "diffusers", "transformers", "numpy")
    source = Evidence(
        method=METHOD,
        floor=found.spreads,
        cohort=(
            ("device", environment.cohort_device(asked.device)),
            ("dtype", asked.case.dtype),
            *((name, versions[name]) for name in packages),
        ),
        by=tuple((name, metrics) for name, metrics in by.items() if metrics),
        missed=tuple(name for name, metrics in by.items() if not metrics),
        reason="" if bounds else proposal.why_none(found.spreads, damage),
        owner=asked.owner,
        date=datetime.date.today().isoformat(),
    )
    return Entry(case=asked.case.id, bounds=bounds, source=source)


@dataclass(frozen=True, kw_only=True)
class Recheck:
    """A case whose battery is to be run again, under which limits."""

    case: Case
    folder: str
    device: str
    limits: dict[str, float]


def recheck(asked: Recheck, report: Report) -> dict[str, tuple[str, ...]]:
    """Defect -> the metrics that catch it now; nothing for one that is missed."""
    case, folder = asked.case, Path(asked.folder)
    torch.set_num_threads(1)
    report("reference")
    reference = noise.generate(noise.generators(case)["reference"](folder, asked.device), case)
    engine = noise.engine(folder, asked.device)
    found = battery.damages(case, engine, reference, report)
    return {name: battery.caught(damage, asked.limits) for name, damage in found}
