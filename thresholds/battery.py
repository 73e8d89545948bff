"""The battery run on one case: every damaged sample and every broken engine that can show, against the reference."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

from conformance.case import Case
from conformance.compare import compare
from conformance.defects.registry import DEFECTS, exercised
from conformance.defects.samples import SAMPLE_DEFECTS
from conformance.generator import Generator, Sample
from conformance.metrics import REGISTRY
from conformance.verdicts import Verdict
from thresholds.evidence import STRUCTURE
from thresholds.noise import Values, generate

Tell = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Damage:
    """values: worst of every metric. refused: the comparator fails it whatever the limits (a constant frame)."""

    values: Values
    refused: bool


def names(case: Case, reference: Sample) -> tuple[str, ...]:
    """Defects that can show in this case: of samples, then of engines."""
    return (*(name for name, defect in SAMPLE_DEFECTS.items() if defect.applies(reference)), *exercised(case))


def damages(
    case: Case, engine: Generator, reference: Sample, tell: Tell, only: Collection[str] | None = None
) -> Iterator[tuple[str, Damage]]:
    """Every defect and its distance from the reference. only: these of them."""
    for name in names(case, reference):
        if only is not None and name not in only:
            continue
        tell(f"defect {name}")
        if name in SAMPLE_DEFECTS:
            candidate = SAMPLE_DEFECTS[name].damage(reference)
        else:
            candidate = generate(DEFECTS[name].variant.around(engine), case)
        found = compare(candidate, reference, limits=None, given_frames=case.request.given_frames)
        values = {metric: result.worst for metric, result in found.metrics.items() if result.worst is not None}
        yield name, Damage(values=values, refused=found.verdict == Verdict.FAIL)


def caught(damage: Damage, limits: Mapping[str, float]) -> tuple[str, ...]:
    """Metrics whose limit the damage breaks, and ``STRUCTURE`` where no limit is needed."""
    broken = [
        metric
        for metric, limit in limits.items()
        if metric in damage.values and not REGISTRY[metric].holds(damage.values[metric], limit)
    ]
    return (*((STRUCTURE,) if damage.refused else ()), *broken)
