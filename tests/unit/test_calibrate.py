"""``conformance calibrate``: what it takes, what it writes, and what its exit code says."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from samples import sample
from test_thresholds import entry, file, put, save

import thresholds
from conformance import cli
from conformance.commands import calibrate
from conformance.matrix import all_cases
from conformance.pool import Outcome, Task
from thresholds.battery import Damage
from thresholds.calibration import Calibration
from thresholds.calibration import entry as made_entry
from thresholds.floor import Spread
from thresholds.noise import Noise

CASES = [case for case in all_cases() if case.layout.world == 1]
FIRST, SECOND = CASES[0], CASES[2]
ASKED = Calibration(case=FIRST, folder="", device="cpu", samples=5, owner="numerics")


def noise(apart: float) -> Noise:
    """Two outcomes of the engine this far apart, one of the reference."""
    samples = ("fresh_process", "after_another_case", "two_threads", "together")
    modes = (("a" * 12, samples), ("b" * 12, ("attention_math",)))
    spreads = (
        Spread(side="engine", device="cpu", modes=modes, repeats=0.0, changes=apart),
        Spread(side="reference", device="cpu", modes=(("a" * 12, (*samples, "x")),), repeats=0.0, changes=0.0),
    )
    values = ({"latents.rel_l2": 0.0, "ssim": 1.0}, {"latents.rel_l2": apart, "ssim": 1.0})
    return Noise(reference=sample(), values=values, spreads=spreads)


DAMAGE = {
    "near": Damage(values={"latents.rel_l2": 0.1, "ssim": 1.0}, refused=False),
    "hidden": Damage(values={"latents.rel_l2": 1e-4, "ssim": 1.0}, refused=False),
    "grey": Damage(values={"latents.rel_l2": 0.0, "ssim": 0.0}, refused=True),
}


def test_an_entry_says_what_its_limits_catch_and_miss(tmp_path: Path) -> None:
    made = made_entry(ASKED, noise(1e-3), DAMAGE)
    assert set(made.limits) == {"latents.rel_l2", "ssim"}
    assert dict(made.source.by) == {"near": ("latents.rel_l2",), "grey": ("structure", "ssim")}
    assert made.source.missed == ("hidden",)
    assert (made.source.reason, made.source.owner, made.source.samples) == ("", "numerics", 10)
    thresholds.write(tmp_path / "a.json", [made], thresholds.Cohort(device="cpu", name="cpu"))
    assert thresholds.load(tmp_path / "a.json").for_case(FIRST.id) == made


def test_an_entry_without_room_says_why(tmp_path: Path) -> None:
    seen = {"near": DAMAGE["near"], "grey": Damage(values={"latents.rel_l2": 0.0, "ssim": 1.0}, refused=True)}
    made = made_entry(ASKED, noise(0.06), seen)
    assert made.limits == {}
    assert "engine on cpu: 2 outcomes" in made.source.reason
    assert dict(made.source.by) == {"grey": ("structure",)}
    assert made.source.missed == ("near",)
    thresholds.write(tmp_path / "a.json", [made], thresholds.Cohort(device="cpu", name="cpu"))


def run(
    monkeypatch: pytest.MonkeyPatch, path: Path, outcomes: Sequence[tuple[str, Any]], *more: str
) -> tuple[int, list[Task]]:
    """The command with what its cases give: an entry, or a message for one that failed."""
    seen: list[Task] = []

    def run_tasks(tasks: Sequence[Task], **options: Any) -> Iterator[Outcome]:
        seen.extend(tasks)
        for key, value in outcomes:
            failed = isinstance(value, str)
            kind, message = ("error", value) if failed else ("done", "")
            yield Outcome(key=key, kind=kind, value=value, message=message, seconds=1.0)

    monkeypatch.setattr(calibrate, "run_tasks", run_tasks)
    monkeypatch.setattr(calibrate, "prepare_checkpoints", lambda models, *rest: dict.fromkeys(models, ("/folder", "")))
    ids = [key for key, _ in outcomes]
    return cli.main(["calibrate", *ids, "--owner", "numerics", "--thresholds", str(path), *more]), seen


def test_other_cases_of_the_file_stay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = save(tmp_path / "a.json", put(file(), "entries", [entry(FIRST.id), entry(SECOND.id)]))
    before = thresholds.load(path)
    made = made_entry(ASKED, noise(1e-3), DAMAGE)
    code, tasks = run(monkeypatch, path, [(FIRST.id, made)], "--samples", "7")
    assert code == 0
    assert [(task.argument.samples, task.argument.owner, task.argument.folder) for task in tasks] == [
        (7, "numerics", "/folder")
    ]
    after = thresholds.load(path)
    assert after.for_case(FIRST.id) == made
    assert after.for_case(SECOND.id) == before.for_case(SECOND.id)


def test_a_case_without_limits_is_exit_code_4_and_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = made_entry(ASKED, noise(0.06), {"near": DAMAGE["near"]})
    code, _ = run(monkeypatch, tmp_path / "a.json", [(FIRST.id, made)], "--json", "-")
    assert code == 4
    out, err = capsys.readouterr()
    assert json.loads(out)["without"] == [FIRST.id]
    assert "NO LIMITS" in err
    assert thresholds.load(tmp_path / "a.json").for_case(FIRST.id) == made


def test_a_case_that_fails_leaves_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = replace(made_entry(ASKED, noise(1e-3), DAMAGE), case=FIRST.id)
    code, _ = run(monkeypatch, tmp_path / "a.json", [(SECOND.id, "it broke"), (FIRST.id, made)])
    assert code == 3
    assert f"FAILED {SECOND.id}: it broke" in capsys.readouterr().err
    assert list(thresholds.load(tmp_path / "a.json").entries) == [FIRST.id]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--owner", " "], "'owner'"),
        (["--owner", "me", "--samples", "4"], "at least 5"),
        (["--owner", "me", "*@tp2+*"], "several ranks"),
        (["--owner", "me", "no-such-case"], "no case matches"),
        (["--owner", "me", "--thresholds", "."], "--thresholds"),
    ],
)
def test_what_cannot_be_calibrated_is_refused_before_anything_runs(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["calibrate", *arguments]) == 2
    assert named in capsys.readouterr().err


@pytest.mark.slow
def test_a_real_case_gets_limits_that_catch_the_battery(tmp_path: Path) -> None:
    path, case = tmp_path / "cpu.json", "ltx-2/one-stage-t2v/unguided@single+diffusers-fp32"
    assert cli.main(["calibrate", case, "--owner", "tests", "--thresholds", str(path), "--jobs", "1"]) == 0
    assert cli.main(["power", case, "--thresholds", str(path)]) == 0
    found = thresholds.load(path).for_case(case)
    assert found is not None
    assert found.source.missed == ()
    assert 1e-8 < found.limits["latents.rel_l2"] < 1e-5
