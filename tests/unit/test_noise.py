"""The samples that a noise floor stands on, with generators that have no model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from samples import sample

from conformance.case import Case
from conformance.defects import nuisance
from conformance.generator import Probe, Sample
from conformance.matrix import all_cases
from thresholds import noise
from thresholds.floor import Spread

CASE = next(case for case in all_cases() if case.layout.world == 1)
CONDITIONS = {"two_threads", "shifted_memory", "batch_neighbours", "attention_math", "attention_flash", "together"}


@dataclass
class Fake:
    """Gives the same sample, its latents moved by ``move(number of the call)``."""

    move: Callable[[int], float] = lambda call: 0.0
    name: str = "fake"
    calls: list[int] = field(default_factory=list)

    def generate(self, case: Case, probe: Probe) -> Sample:
        self.calls.append(case.request.seed)
        base = sample(seed=0)
        step = self.move(len(self.calls))
        return replace(base, latents={name: value * (1 + step) for name, value in base.latents.items()})


def measure(
    monkeypatch: pytest.MonkeyPatch, engine: Callable[[], Fake], reference: Callable[[], Fake] = Fake, fewest: int = 5
) -> noise.Noise:
    def sides(case: Case) -> dict[str, Callable[[Path, str], Fake]]:
        return {"engine": lambda folder, place: engine(), "reference": lambda folder, place: reference()}

    monkeypatch.setattr(noise, "generators", sides)
    monkeypatch.setattr(
        noise, "_in_fresh_process", lambda build, case, folder, place: build(folder, place).generate(case, Probe())
    )
    return noise.measure(CASE, Path(), "cpu", fewest, lambda place: None)


def spread(found: noise.Noise, side: str) -> Spread:
    (each,) = (spread for spread in found.spreads if spread.side == side)
    return each


def test_equal_sides_are_one_outcome_of_every_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    found = measure(monkeypatch, Fake)
    names = {"fresh_process", "after_another_case", *CONDITIONS}
    assert [set(samples) for _, samples in spread(found, "reference").modes] == [names]
    assert [set(samples) for _, samples in spread(found, "engine").modes] == [names | set(nuisance.NUISANCES)]
    assert found.spreads[0].modes[0][0] == found.spreads[1].modes[0][0]
    assert [values["latents.rel_l2"] for values in found.values] == [0.0]
    assert all((each.repeats, each.changes, each.device) == (0.0, 0.0, "cpu") for each in found.spreads)


def test_repeats_fill_up_to_the_number_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    found = measure(monkeypatch, Fake, fewest=16)
    assert {each.samples for each in found.spreads} == {16}
    assert "repeat_8" in spread(found, "reference").modes[0][1]


def test_a_condition_holds_while_its_sample_is_generated(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    found = measure(monkeypatch, lambda: Fake(move=lambda call: 0.01 * (torch.get_num_threads() - 1)))
    alone = [set(samples) for _, samples in spread(found, "engine").modes[1:]]
    assert alone == [{"two_threads", "together"}]


def test_another_case_comes_before_the_sample_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Fake] = []

    def engine() -> Fake:
        made.append(Fake())
        return made[-1]

    measure(monkeypatch, engine)
    fresh, used = (fake.calls for fake in made)
    assert fresh == [CASE.request.seed]
    assert used[0] != CASE.request.seed
    assert set(used[1:]) == {CASE.request.seed}


def test_two_modes_of_the_engine_are_two_outcomes_and_both_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every other run is 1 % larger: 13 runs, of which the first and then every second is as the reference is."""
    found = measure(monkeypatch, lambda: Fake(move=lambda call: 0.01 * (call % 2 == 0)))
    engine, reference = spread(found, "engine"), spread(found, "reference")
    assert len(engine.modes) == 2
    assert len(reference.modes) == 1
    assert engine.samples == sum(len(samples) for _, samples in engine.modes) == 13
    assert engine.repeats == pytest.approx(0.01, rel=1e-5), "the same conditions gave both"
    assert max(values["latents.rel_l2"] for values in found.values) == pytest.approx(0.01, rel=1e-5)


def test_every_outcome_meets_every_outcome_of_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """1 % up here and 1 % down there: 2 % apart, though neither is further than 1 % from the baseline."""
    found = measure(
        monkeypatch,
        lambda: Fake(move=lambda call: 0.01 * (call == 3)),
        lambda: Fake(move=lambda call: -0.01 * (call == 3)),
    )
    assert {round(each.changes, 5) for each in found.spreads} == {0.01}
    assert max(values["latents.rel_l2"] for values in found.values) == pytest.approx(0.02 / 0.99, rel=1e-4)
    assert {each.repeats for each in found.spreads} == {0.0}


def test_a_fingerprint_is_of_everything_that_is_judged() -> None:
    base = sample()
    louder = replace(base, audio=np.nextafter(base.audio, 1))
    brighter = replace(base, frames=base.frames + 1)
    moved = replace(base, latents={**base.latents, "audio": torch.nextafter(base.latents["audio"], torch.tensor(9.0))})
    silent = replace(base, audio=None, audio_rate=None)
    assert noise.fingerprint(sample()) == noise.fingerprint(base)
    marks = {noise.fingerprint(each) for each in (base, louder, brighter, moved, silent)}
    assert len(marks) == 5
    assert {len(mark) for mark in marks} == {12}


def test_a_fresh_process_has_nothing_of_this_one() -> None:
    torch.set_num_threads(1)
    fake = Fake()
    found = noise._in_fresh_process(lambda folder, place: fake, CASE, Path(), "cpu")
    assert noise.fingerprint(found) == noise.fingerprint(sample(seed=0))
    assert fake.calls == []


def test_a_fresh_process_that_dies_is_an_error() -> None:
    def build(folder: Path, place: str) -> Fake:
        raise SystemExit(3)

    with pytest.raises(RuntimeError, match="died before it gave a sample"):
        noise._in_fresh_process(build, CASE, Path(), "cpu")
