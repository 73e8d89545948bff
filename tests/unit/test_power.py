"""Detection power from evidence: the numbers, the tables, and when the command is red."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_thresholds import entry, file, put, save
from test_waivers import LAST, waiver

import thresholds
from conformance import cli
from conformance.commands import power as command
from conformance.errors import InputError
from conformance.matrix import all_cases
from conformance.pool import Outcome
from thresholds import power, waivers

CASES = [case.id for case in all_cases() if case.layout.world == 1 and case.dtype == "fp32"][:12]
CASE = CASES[0]


def known(folder: Path, missed: list[str], waived: list[dict[str, Any]] | None = None, n: int = 1) -> Path:
    """A folder of limits for ``n`` cases: 38 defects caught, ``missed`` let through."""
    caught = {"erf-gelu": ["latents.rel_l2"], "seam": ["psnr", "ssim"]} | {f"d{i}": ["psnr"] for i in range(36)}
    entries = []
    for case in CASES[:n]:
        made = put(entry(case), "evidence.power", {"caught": caught, "missed": missed})
        entries.append(made)
    folder.mkdir(exist_ok=True)
    save(folder / "cpu.json", put(file(), "entries", entries))
    save(folder / "waivers.json", {"schema": "conformance.waivers/1", "waivers": waived or []})
    return folder


def test_power_is_the_share_of_unwaived_defects(tmp_path: Path) -> None:
    found = power.of(thresholds.load(known(tmp_path, ["x", "y"])).entries[CASE], LAST)
    assert found.power == 38 / 40
    assert found.enough, "0.95 is enough"
    found = power.of(thresholds.load(known(tmp_path, ["x", "y", "z"])).entries[CASE], LAST)
    assert not found.enough
    held = thresholds.load(known(tmp_path, ["x", "y", "z"], [waiver(defect="z", cases="*")]))
    assert power.of(held.entries[CASE], LAST).power == 38 / 40


def run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = cli.main(["power", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_the_command_is_red_below_the_share(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(["--thresholds", str(known(tmp_path, ["x", "y"]))], capsys)
    assert (code, err) == (0, "")
    code, out, err = run(["--thresholds", str(known(tmp_path, ["x", "y", "z"]))], capsys)
    assert code == 1
    assert f"{CASE}: power 0.927 is below 0.95 (missed: x, y, z)" in err
    assert "seam" in out


def test_the_command_is_red_the_day_after_a_waiver(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    today = waivers.today().isoformat()
    path = known(tmp_path, ["x"], [waiver(defect="x", cases="*", expires=today)])
    assert run(["--thresholds", str(path)], capsys)[0] == 0
    path = known(tmp_path, ["x"], [waiver(defect="x", cases="*", expires="2026-01-01")])
    code, _, err = run(["--thresholds", str(path)], capsys)
    assert code == 1
    assert "waiver of 'x' for '*': expired after 2026-01-01" in err


def test_the_command_is_red_for_a_waiver_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = known(tmp_path, ["x"], [waiver(defect="seam", cases="*", expires="2999-01-01")])
    code, _, err = run(["--thresholds", str(path)], capsys)
    assert code == 1
    assert "waiver of 'seam' for '*': covers nothing that is missed" in err
    assert run([CASE, "--thresholds", str(path)], capsys)[0] == 0, "a few cases say nothing of every waiver"


def test_the_command_is_red_for_a_case_without_limits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = put(put(put(file(), "entries", [entry(CASE)]), "entries.0.limits", {}), "entries.0.evidence.reason", "modes")
    data = put(data, "entries.0.evidence.power.caught", {})
    code, _, err = run(["--thresholds", str(save(tmp_path / "a.json", data))], capsys)
    assert code == 1
    assert f"{CASE}: modes" in err


def test_one_case_shows_every_defect_and_what_catches_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = known(tmp_path, ["x", "y"], [waiver(defect="y", cases="*", expires="2999-01-01")])
    _, out, _ = run([CASE, "--thresholds", str(path)], capsys)
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[0] == f"{CASE} power 0.974"
    assert {"caught seam psnr, ssim", "caught erf-gelu latents.rel_l2", "MISSED x", "waived y"} <= set(lines)
    assert len(lines) == 41


def test_many_cases_are_a_grid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = known(tmp_path, ["x", "y"], [waiver(defect="y", cases=f"*{CASES[1]}", expires="2999-01-01")], n=12)
    _, out, _ = run(["--thresholds", str(path)], capsys)
    lines = out.splitlines()
    ids = [case for case in (case.id for case in all_cases()) if case in CASES[:12]]
    assert [line.split()[2] for line in lines[:12]] == ids
    rows = {line.split("  ")[0].strip(): line for line in lines[13:]}
    column = rows["x"].index("M")
    assert rows["x"][column : column + 12] == "M" * 12
    assert rows["y"][column : column + 12] == "".join("w" if case == CASES[1] else "M" for case in ids)
    assert rows["seam"][column:] == "+" * 12 + "  psnr 12, ssim 12"


def test_json_lists_names_and_keeps_metrics_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(["--thresholds", str(known(tmp_path, ["x"])), "--json", "-"], capsys)
    (case,) = json.loads(out)["cases"]
    assert set(case) == {"id", "power", "caught", "missed", "waived", "by", "trouble"}
    assert case["missed"] == ["x"]
    assert case["by"]["seam"] == ["psnr", "ssim"]
    assert set(case["by"]) == set(case["caught"])


def test_a_case_without_an_entry_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run([CASES[1], "--thresholds", str(known(tmp_path, []))], capsys)
    assert code == 2
    assert CASES[1] in err
    with pytest.raises(InputError, match="no cases"):
        power.chosen(thresholds.load(tmp_path), [])


def measured(
    monkeypatch: pytest.MonkeyPatch, path: Path, kind: str, value: Any, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str]:
    """``power CASE --measure`` whose one task ends like this: exit code and standard error."""

    def run_tasks(tasks: Any, **options: Any) -> Iterator[Outcome]:
        (task,) = tasks
        assert (task.key, task.argument.limits["ssim"]) == (CASE, 0.99)
        yield Outcome(key=CASE, kind=kind, value=value, message="it broke", seconds=1.0)

    monkeypatch.setattr(command, "run_tasks", run_tasks)
    monkeypatch.setattr(command, "prepare_checkpoints", lambda models, *rest: dict.fromkeys(models, ("/folder", "")))
    code, _, err = run([CASE, "--measure", "--thresholds", str(path)], capsys)
    return code, err


def test_the_command_is_red_when_a_new_measurement_catches_less(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = known(tmp_path, [])
    found = dict(thresholds.load(path).entries[CASE].source.by)
    assert measured(monkeypatch, path, "done", found, capsys)[0] == 0
    code, err = measured(monkeypatch, path, "done", found | {"seam": ()}, capsys)
    assert code == 1, "power is 0.974 still"
    assert f"{CASE}: seam was caught when the limits were made, and is not now" in err
    code, err = measured(monkeypatch, path, "crash", None, capsys)
    assert code == 3
    assert f"{CASE}: it broke" in err


def test_measured_again_what_was_caught_and_is_not_is_a_drop(tmp_path: Path) -> None:
    found = thresholds.load(known(tmp_path, ["x"], [waiver(defect="y", cases="*")])).entries[CASE]
    found = replace(found, source=replace(found.source, by=(("a", ("psnr",)), ("b", ("psnr",)))))
    now, lost = power.remeasured(found, {"a": ("ssim",), "b": (), "x": ("psnr",)}, LAST)
    assert lost == ("b",)
    assert (now.by, now.missed, now.power) == ({"a": ("ssim",), "x": ("psnr",)}, ("b",), 2 / 3)
    _, gone = power.remeasured(found, {"a": ("ssim",)}, LAST)
    assert gone == ("b",), "a defect that is not in the battery any more is not caught"
