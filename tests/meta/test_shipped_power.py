"""Every shipped case has limits whose power was measured; CI is red when it drops."""

from __future__ import annotations

from pathlib import Path

import pytest
from sides import CASES, run
from test_mutants import LIMITS, Plain, Reference

from conformance.case import Case
from conformance.defects.registry import DEFECTS, exercised
from conformance.defects.samples import SAMPLE_DEFECTS
from thresholds import MIN_POWER, battery, power, table
from thresholds.noise import worst
from thresholds.waivers import today

CASE = CASES["ltx-2.3/one-stage-t2v/all-guidance@single+diffusers-bf16"]
POWER = Path(__file__).parents[2] / "docs" / "power.md"


def _request(case: Case) -> tuple[str, ...]:
    return case.model, case.pipeline, case.variant, case.dtype, case.quantization


def shipped() -> list[Case]:
    """Cases that CI judges by limits: of official ones, requests that diffusers cannot run."""
    default = {_request(case) for case in CASES.values() if "default" in case.suites}
    alone = [case for case in CASES.values() if "official" in case.suites and _request(case) not in default]
    return [*(case for case in CASES.values() if "default" in case.suites), *alone]


@pytest.mark.parametrize("case", shipped(), ids=lambda case: case.id)
def test_every_request_that_ci_runs_has_limits_that_catch_the_battery(case: Case) -> None:
    entry = LIMITS.for_case(case.id)
    assert entry is not None
    assert entry.trouble(today()) == ""
    assert entry.power(today()) >= MIN_POWER
    measured = {*entry.source.caught, *entry.source.missed}
    assert measured - set(SAMPLE_DEFECTS) == set(exercised(case))
    kinds = {SAMPLE_DEFECTS[name].kind for name in measured & set(SAMPLE_DEFECTS)}
    assert kinds == {"pixels", "motion", "sound", "latents"}


def test_nothing_is_wrong_with_the_table_or_the_waivers() -> None:
    powers = [power.of(entry, today()) for entry in LIMITS.entries.values()]
    assert list(power.problems(powers, LIMITS, today())) == []


def test_the_documented_table_is_the_shipped_file() -> None:
    _, _, below = POWER.read_text(encoding="utf-8").partition(table.MARKER)
    assert below.strip().splitlines() == list(table.tables(LIMITS.entries, tuple(CASES.values()), today()))


def test_waivers_are_of_known_defects() -> None:
    assert {waiver.defect for waiver in LIMITS.waivers} <= {*SAMPLE_DEFECTS, *DEFECTS}


@pytest.mark.slow
def test_the_battery_run_now_catches_what_the_evidence_says(plain: Plain, reference: Reference) -> None:
    entry = LIMITS.for_case(CASE.id)
    assert entry is not None
    found = battery.damages(CASE, plain(CASE.model), reference(CASE.id), lambda place: None)
    now, lost = power.remeasured(entry, {name: battery.caught(damage, entry.limits) for name, damage in found}, today())
    assert lost == ()
    assert now.power >= MIN_POWER


def test_limits_that_catch_less_are_a_drop(plain: Plain, reference: Reference) -> None:
    entry = LIMITS.for_case(CASE.id)
    assert entry is not None
    blind = {metric: limit for metric, limit in entry.limits.items() if metric.startswith("audio.")}
    found = battery.damages(CASE, plain(CASE.model), reference(CASE.id), lambda place: None, only=("seam", "noise_12"))
    now, lost = power.remeasured(entry, {name: battery.caught(d, blind) for name, d in found}, today())
    assert {"seam", "noise_12"} <= set(lost)
    assert now.power == 0.0


def test_the_unbroken_engine_is_caught_by_nothing(plain: Plain, reference: Reference) -> None:
    entry = LIMITS.for_case(CASE.id)
    assert entry is not None
    values = worst(run(plain(CASE.model), CASE), reference(CASE.id), CASE)
    assert battery.caught(battery.Damage(values=values, refused=False), entry.limits) == ()
