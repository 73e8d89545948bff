"""The gate is tested by breaking the engine: every defect turns it red but where it is waived.

Judged with the shipped limits, as ``conformance run --engine conformance.defects.engine:NAME`` would.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sides import CASES, OFFICIAL, run

import thresholds
from conformance.case import Case
from conformance.defects import nuisance
from conformance.defects.registry import DEFECTS, exercised
from conformance.defects.samples import SAMPLE_DEFECTS
from conformance.gates import judge
from conformance.generator import Generator, Sample
from conformance.verdicts import Verdict

LIMITS = thresholds.load(device="cpu")
JUDGED = [
    CASES[f"{model}/one-stage-t2v/all-guidance@single+diffusers-{dtype}"]
    for model in ("ltx-2", "ltx-2.3")
    for dtype in ("fp32", "bf16")
]
# each shows what no case above it can: a given frame, two stages, and with the official packages strength and res2s
FURTHER = [
    *(CASES[f"ltx-2.3/one-stage-ti2v/unguided@single+diffusers-{dtype}"] for dtype in ("fp32", "bf16")),
    *(CASES[f"ltx-2.3/two-stage-t2v/all-guidance-adapted@single+diffusers-{dtype}"] for dtype in ("fp32", "bf16")),
    CASES["ltx-2.3/two-stage-t2v/cfg@single+diffusers-bf16"],  # strengths of the LoRA far apart
]
WITH_OFFICIAL = [
    CASES[f"ltx-2.3/{name}@single+official-1.0.0-{dtype}"]
    for name in ("one-stage-t2v/all-guidance-no-v2a", "two-stage-hq-ti2v/all-guidance-strength")
    for dtype in ("fp32", "bf16")
]
# defects of what goes into the model: the handshake is red before any distance is asked for
OF_INPUTS = {"no_frame_rate": "positions.video"}
Reference = Callable[[str], Sample]
Plain = Callable[[str], Generator]


def _caught(case: Case) -> tuple[str, ...]:
    """What the shipped limits of a case say they catch; without limits, everything, so that the tests are red."""
    entry = LIMITS.for_case(case.id)
    return (*SAMPLE_DEFECTS, *DEFECTS) if entry is None else entry.source.caught


def _new() -> list[tuple[Case, str]]:
    """Each defect once a dtype and model, in the first case that shows it, and everywhere in ``JUDGED``."""
    pairs = [(case, name) for case in JUDGED for name in exercised(case) if name in _caught(case)]
    shown = {(case.dtype, name) for case, name in pairs}
    for case in [*FURTHER, *WITH_OFFICIAL]:
        for name in exercised(case):
            if name in _caught(case) and (case.dtype, name) not in shown:
                shown.add((case.dtype, name))
                pairs.append((case, name))
    return pairs


def _verdict(case: Case, candidate: Sample, reference: Sample) -> tuple[Verdict, str]:
    result = judge(case, "reference", candidate, reference, thresholds=LIMITS, clip=None)
    return result.verdict, result.reason


def _marked(case: Case, *values: object) -> object:
    marks = [OFFICIAL] if case in WITH_OFFICIAL else []
    return pytest.param(case, *values, marks=[*marks, pytest.mark.slow] if case.model == "ltx-2" else marks)


@pytest.mark.parametrize(
    ("case", "name"),
    [_marked(case, name) for case, name in _new()],
    ids=lambda value: value if isinstance(value, str) else value.id,
)
def test_a_defect_of_the_engine_turns_the_gate_red(case: Case, name: str, plain: Plain, reference: Reference) -> None:
    broken = DEFECTS[name].variant.around(plain(case.model))
    verdict, reason = _verdict(case, run(broken, case), reference(case.id))
    if name in OF_INPUTS:
        assert verdict == Verdict.INCOMPARABLE, reason
        assert OF_INPUTS[name] in reason
        return
    assert verdict == Verdict.FAIL, reason
    assert "latents.rel_l2" in reason


@pytest.mark.parametrize("name", SAMPLE_DEFECTS)
@pytest.mark.parametrize("case", JUDGED, ids=lambda case: case.id)
def test_damage_to_a_sample_turns_the_gate_red(case: Case, name: str, reference: Reference) -> None:
    whole = reference(case.id)
    if not SAMPLE_DEFECTS[name].applies(whole):
        pytest.skip("cannot show in this case")
    verdict, reason = _verdict(case, SAMPLE_DEFECTS[name].damage(whole), whole)
    assert (verdict == Verdict.FAIL) == (name in _caught(case)), reason


@pytest.mark.parametrize("name", nuisance.NUISANCES)
@pytest.mark.parametrize("case", JUDGED[2:], ids=lambda case: case.id)
def test_a_change_that_must_not_matter_stays_green(case: Case, name: str, plain: Plain, reference: Reference) -> None:
    changed = getattr(nuisance, name).around(plain(case.model))
    verdict, reason = _verdict(case, run(changed, case), reference(case.id))
    assert verdict in (Verdict.PASS, Verdict.PASS_EXACT), reason


@pytest.mark.parametrize(
    "case", [_marked(case) for case in [*JUDGED, *FURTHER, *WITH_OFFICIAL]], ids=lambda case: case.id
)
def test_the_unbroken_engine_is_bit_equal(case: Case, plain: Plain, reference: Reference) -> None:
    assert _verdict(case, run(plain(case.model), case), reference(case.id))[0] == Verdict.PASS_EXACT


def test_every_defect_is_shown_in_fp32_and_most_in_bf16() -> None:
    shown = {(case.dtype, name) for case, name in _new()}
    assert {name for dtype, name in shown if dtype == "fp32"} == set(DEFECTS)
    assert set(DEFECTS) - {name for dtype, name in shown if dtype == "bf16"} <= {
        waiver.defect for waiver in LIMITS.waivers
    }
