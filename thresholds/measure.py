"""Measure limits: ``python -m thresholds.measure --owner NAME thresholds/cpu.json``.

For every case one reference is compared with engines that must agree with it (the noise) and with damaged engines
and samples (the defects). Per metric, as distances from a perfect match:

- floor: the largest distance among the noise samples;
- the metric guards a defect when half of the defect's distance is at least ``MARGIN`` times the floor;
- the limit is the geometric mean of the floor and half of the smallest guarded defect's distance (a quarter of that
  distance where the floor is zero).

Limits are set on ``JUDGED``; a metric that guards nothing gets none. A defect that no limit catches is listed as
missed. What the file says of the matrix's other cases stays.
"""

from __future__ import annotations

import argparse
import datetime
import math
import os
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path

from conformance import environment
from conformance.case import Case
from conformance.commands.output import progress
from conformance.matrix import SUITES, all_cases, select
from conformance.metrics import REGISTRY
from conformance.pool import Report, Task, run_tasks
from conformance.runner import Options, prepare_checkpoints
from thresholds.bounds import Bound, loosest
from thresholds.loader import load, write
from thresholds.schema import Cohort, Entry, Evidence

MARGIN = 2.0
# The rest are shown, not judged: extremes of single values move too much between two legal runs.
JUDGED = (
    "latents.rel_l2",
    "ssim",
    "psnr",
    "mean_abs_diff",
    "tile_ssim",
    "tile_mean_abs_diff",
    "audio.correlation",
    "audio.log_spectral_distance",
    "audio.rms_db",
)
METHOD = (
    "floor: engine against its reference under changes that must not matter (thread count, CFG pair or sequential, "
    "timestep per batch or token, token memory, text mask); "
    "limit: geometric mean of the floor and half of the smallest guarded defect"
)
Values = dict[str, dict[str, float]]  # sample -> metric -> worst value


def measure_case(argument: tuple[Case, str, str], report: Report) -> tuple[Values, Values]:
    """Worst value of every metric for each noise sample and each defect of a case. argument: case, folder, device."""
    import torch

    from conformance.compare import compare
    from conformance.defects import nuisance
    from conformance.defects.registry import DEFECTS, guarded
    from conformance.defects.samples import SAMPLE_DEFECTS
    from conformance.generator import Generator, Probe, Sample
    from conformance.job import REFERENCES, reference_of
    from conformance.worker import factory
    from engine.generator import build

    case, folder, device = argument

    def run(generator: Generator, threads: int = 1) -> Sample:
        report(generator.name)
        torch.set_num_threads(threads)
        return generator.generate(case, Probe(depth="step", keep=False))

    def worst(sample: Sample) -> dict[str, float]:
        measured = compare(sample, reference, limits=None, given_frames=case.request.given_frames).metrics
        return {name: result.worst for name, result in measured.items() if result.worst is not None}

    reference = run(factory(REFERENCES[reference_of(case)])(Path(folder), device))
    plain = build(Path(folder), device)
    noise = {"plain": worst(run(plain)), "two-threads": worst(run(plain, threads=2))}
    for name in nuisance.NUISANCES:
        noise[name] = worst(run(getattr(nuisance, name).around(plain)))
    damage = {name: worst(run(DEFECTS[name].variant.around(plain))) for name in guarded(case)}
    damage |= {name: worst(each.damage(reference)) for name, each in SAMPLE_DEFECTS.items() if each.applies(reference)}
    return noise, damage


def _distance(metric: str, value: float) -> float:
    """How far a value is from a perfect match, on a scale where twice as bad is twice the number."""
    if REGISTRY[metric].better == "lower":
        return value
    return 10 ** (-value / 20) if metric == "psnr" else 1 - value


def _value(metric: str, distance: float) -> float:
    if REGISTRY[metric].better == "lower":
        return distance
    return -20 * math.log10(distance) if metric == "psnr" else 1 - distance


def bound(metric: str, noise: list[float], defects: dict[str, float]) -> Bound | None:
    """The limit of a metric by the rule above, or None when it guards nothing."""
    floor = max(noise, key=lambda value: _distance(metric, value))
    higher = REGISTRY[metric].better == "higher"
    guarded = {
        name: value
        for name, value in defects.items()
        if _distance(metric, loosest(metric, higher, value)) > MARGIN * _distance(metric, floor)
    }
    if not guarded:
        return None
    name = min(guarded, key=lambda name: _distance(metric, guarded[name]))
    half, base = _distance(metric, loosest(metric, higher, guarded[name])), _distance(metric, floor)
    limit = math.sqrt(base * half) if base > 0 else half / 2
    return Bound(
        metric=metric,
        limit=_value(metric, limit),
        noise_floor=floor,
        defect=name,
        defect_value=guarded[name],
    )


def entry(case: Case, noise: Values, damage: Values, *, owner: str, device: str) -> Entry:
    """Limits of one case from its measured values."""
    bounds = []
    for metric in JUDGED:
        floor = [values[metric] for values in noise.values() if metric in values]
        # a metric that does not see a defect at all does not guard it
        seen = {n: v[metric] for n, v in damage.items() if metric in v and _distance(metric, v[metric]) > 0}
        made = bound(metric, floor, seen) if floor and seen else None
        if made is not None:
            bounds.append(made)
    caught = [
        name
        for name, values in damage.items()
        if any(b.metric in values and not REGISTRY[b.metric].holds(values[b.metric], b.limit) for b in bounds)
    ]
    versions = environment.versions()
    source = Evidence(
        method=METHOD,
        samples=len(noise),
        cohort=(
            ("device", device),
            ("dtype", case.dtype),
            *((name, versions[name]) for name in ("torch", "diffusers", "transformers", "numpy")),
        ),
        caught=tuple(caught),
        missed=tuple(name for name in damage if name not in caught),
        owner=owner,
        date=datetime.date.today().isoformat(),
    )
    return Entry(case=case.id, bounds=tuple(bounds), source=source)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m thresholds.measure", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("path", type=Path, help="thresholds file to write")
    parser.add_argument("cases", nargs="*", help="cases (default: all of the suite)")
    parser.add_argument("--suite", choices=SUITES, default="default", help="(default: default)")
    parser.add_argument("--owner", required=True, help="who answers for these limits")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options = parser.parse_args()
    cases = {case.id: case for case in select(all_cases(), options.cases, options.suite)}
    device = environment.cohort_device(options.device)
    entries: list[Entry] = []
    failed = []
    with tempfile.TemporaryDirectory(prefix="conformance-measure-") as scratch:
        models = tuple(dict.fromkeys(case.model for case in cases.values()))
        folders = prepare_checkpoints(dict.fromkeys(models, ("checkpoint",)), Options(out=Path(scratch)))
        tasks = [
            Task(
                key=case.id,
                target=measure_case,
                argument=(case, folders[case.model][0], options.device),
                timeout=1800,
                log=Path(scratch) / f"{number}.txt",
            )
            for number, case in enumerate(cases.values())
        ]
        jobs = 1 if options.device == "cuda" else len(os.sched_getaffinity(0))
        others = _others(options.path, device, cases)
        with progress(len(tasks), "cases") as (done, place):
            for outcome in run_tasks(tasks, jobs=jobs, on_place=place):
                if outcome.kind != "done":
                    failed.append(outcome.key)
                    done(f"FAILED {outcome.key}: {outcome.message}")
                    continue
                made = entry(cases[outcome.key], *outcome.value, owner=options.owner, device=device)
                entries.append(made)
                write(options.path, [*others, *entries], Cohort(device=device, name=device))
                done(_line(made))
    if failed:
        print(f"{len(failed)} cases could not be measured: {', '.join(failed)}", file=sys.stderr)
        return 3
    return 0


def _others(path: Path, device: str, measured: Collection[str]) -> list[Entry]:
    """What the file says of the matrix's other cases."""
    if not path.exists():
        return []
    known = load(path, device=device)
    found = (known.for_case(case.id) for case in all_cases() if case.id not in measured)
    return [each for each in found if each is not None]


def _line(made: Entry) -> str:
    missed = f"missed: {', '.join(made.source.missed) or 'none'}"
    for b in made.bounds:
        if b.metric == "latents.rel_l2":
            limits = f"{b.metric} {b.noise_floor:.2g} < {b.limit:.2g} < {b.defect_value:.2g} ({b.defect})"
            return f"{made.case}  {limits}  {missed}"
    return f"{made.case}  no limit on latents.rel_l2  {missed}"


if __name__ == "__main__":
    sys.exit(main())
