"""Limits from evidence: between the noise floor and half of the smallest guarded defect, or none and a reason."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from conformance.metrics import REGISTRY
from thresholds import proposal
from thresholds.battery import Damage, caught
from thresholds.evidence import STRUCTURE
from thresholds.floor import Spread, modes

SIMILARITIES = ("ssim", "tile_ssim", "audio.correlation", "audio.side_correlation")
DISTANCES = st.floats(1e-12, 0.9)


def damage(**values: float) -> dict[str, Damage]:
    """Defects seen by the relative L2 of the latents alone."""
    return {name: Damage(values={"latents.rel_l2": value}, refused=False) for name, value in values.items()}


def test_the_limit_is_the_geometric_mean_of_floor_and_half_the_smallest_defect() -> None:
    bound = proposal.bound("latents.rel_l2", [0.0, 1e-6, 5e-7], {"far": 0.5, "near": 8e-6, "hidden": 3e-6})
    assert bound is not None
    assert bound.limit == pytest.approx(2e-6)
    assert (bound.noise_floor, bound.defect, bound.defect_value) == (1e-6, "near", 8e-6)


@pytest.mark.parametrize(("defect", "guarded"), [(math.nextafter(4e-6, 1), True), (4e-6, False), (1e-6, False)])
def test_a_defect_is_guarded_when_half_of_it_is_beyond_twice_the_floor(defect: float, guarded: bool) -> None:
    assert (proposal.bound("latents.rel_l2", [1e-6], {"near": defect}) is not None) == guarded


@pytest.mark.parametrize(("defect", "guarded"), [(math.nextafter(0.8, 1), True), (0.8, False)])
def test_one_number_of_a_whole_sample_needs_twice_the_room(defect: float, guarded: bool) -> None:
    assert (proposal.bound("audio.rms_db", [0.1], {"near": defect}) is not None) == guarded


def test_a_few_elements_are_no_share() -> None:
    """One element of 1536 became a bf16 number by chance in legal runs, two in a defect: nothing is guarded."""
    assert proposal.bound("latents.coarse_share", [0.0, 1 / 1536], {"near": 4 / 1536}) is None
    bound = proposal.bound("latents.coarse_share", [0.0, 1 / 1536], {"near": 4 / 1536, "rounded": 0.98})
    assert bound is not None
    assert (bound.defect, bound.limit) == ("rounded", 0.245)


def test_without_noise_the_limit_is_a_quarter_of_the_smallest_defect() -> None:
    bound = proposal.bound("mean_abs_diff", [0.0, 0.0], {"near": 2.0})
    assert bound is not None
    assert bound.limit == 0.5


def test_the_rounding_of_a_metric_guards_nothing() -> None:
    assert proposal.bound("audio.correlation", [1.0], {"gain": 1 - 4e-16}) is None
    bound = proposal.bound("audio.correlation", [1 - 1e-16], {"gain": 1 - 4e-16, "delay": 0.9})
    assert bound is not None
    assert bound.defect == "delay"


@pytest.mark.parametrize(
    ("noise", "defects"),
    [([], {"near": 1.0}), ([math.nan, 0.0], {"near": 1.0}), ([0.0], {}), ([0.0], {"near": math.nan})],
)
def test_nothing_measured_is_no_limit(noise: list[float], defects: dict[str, float]) -> None:
    assert proposal.bound("latents.rel_l2", noise, defects) is None


@given(
    st.sampled_from(proposal.JUDGED),
    st.lists(DISTANCES | st.just(0.0), min_size=1, max_size=6),
    st.dictionaries(st.sampled_from("abcdef"), DISTANCES, min_size=1),
)
def test_every_proposal_is_what_the_loader_takes_and_catches_what_it_guards(
    metric: str, noise: list[float], far: dict[str, float]
) -> None:
    def value(distance: float) -> float:
        return proposal.value_at(metric, distance) if distance else (math.inf if metric == "psnr" else perfect)

    perfect = 1.0 if metric in SIMILARITIES else 0.0
    values = {name: value(distance) for name, distance in far.items()}
    bound = proposal.bound(metric, [value(distance) for distance in noise], values)
    assume(bound is not None)
    assert bound is not None
    bound.check("here")
    assert all(REGISTRY[metric].holds(value(distance), bound.limit) for distance in noise)
    found = {name: Damage(values={metric: each}, refused=False) for name, each in values.items()}
    for name, distance in far.items():
        if distance >= far[bound.defect]:
            assert caught(found[name], {metric: bound.limit}) == (metric,)


@given(st.sampled_from(proposal.JUDGED), st.floats(1e-6, 0.9))
def test_distances_and_values_are_inverse(metric: str, distance: float) -> None:
    assert proposal.distance(metric, proposal.value_at(metric, distance)) == pytest.approx(distance)


def test_limits_are_set_on_judged_metrics_alone() -> None:
    assert set(proposal.JUDGED) <= set(REGISTRY)
    noise = [{"latents.rel_l2": 1e-6, "max_abs_diff": 1.0}]
    far = {"near": Damage(values={"latents.rel_l2": 1.0, "max_abs_diff": 200.0}, refused=False)}
    assert [bound.metric for bound in proposal.limits(noise, far)] == ["latents.rel_l2"]


def test_what_catches_a_defect() -> None:
    limits = {"latents.rel_l2": 0.5, "ssim": 0.9}
    values = {"latents.rel_l2": 0.5, "ssim": 0.8}
    assert caught(Damage(values=values, refused=False), limits) == ("ssim",)
    assert caught(Damage(values=values, refused=True), limits) == (STRUCTURE, "ssim")
    assert caught(Damage(values={**values, "latents.rel_l2": math.nan}, refused=False), limits) == (
        "latents.rel_l2",
        "ssim",
    )
    assert caught(Damage(values={**values, "ssim": 0.9}, refused=False), limits) == ()
    assert caught(Damage(values={"ssim": 0.9}, refused=False), limits) == (), "what was not measured catches nothing"


def test_outcomes_are_grouped_not_averaged() -> None:
    marks = {"fresh": "a" * 12, "repeat_1": "b" * 12, "repeat_2": "a" * 12, "repeat_3": "b" * 12, "repeat_4": "b" * 12}
    assert modes(marks) == (("b" * 12, ("repeat_1", "repeat_3", "repeat_4")), ("a" * 12, ("fresh", "repeat_2")))


def test_modes_further_apart_than_defects_leave_no_limit_and_are_named() -> None:
    """Two outcomes 0.3 apart: a band over both would let a defect of 0.4 through."""
    noise, far = [{"latents.rel_l2": 0.0}, {"latents.rel_l2": 0.3}], damage(near=0.4)
    assert proposal.limits(noise, far) == ()
    found = (("b" * 12, ("repeat_1", "repeat_2", "repeat_3")), ("a" * 12, ("fresh", "repeat_4")))
    reason = proposal.why_none([Spread(side="engine", device="cpu", modes=found, repeats=0.3, changes=0.3)], far)
    assert "2 outcomes (3 of bbbbbbbbbbbb, 2 of aaaaaaaaaaaa)" in reason
    assert "repeats 0.3" in reason
    assert "'near', is at 0.4" in reason
    assert "\n" not in reason


def test_modes_nearer_than_defects_have_a_limit_beyond_the_furthest() -> None:
    bounds = proposal.limits([{"latents.rel_l2": 0.0}, {"latents.rel_l2": 0.01}], damage(near=0.4))
    assert [bound.noise_floor for bound in bounds] == [0.01]
    assert bounds[0].limit > 0.01
