"""Accepting a run's output and its gaps, comparing stores and runs, and what an acceptance cannot do."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conformance import cli, ledger, results, runner
from conformance.acceptance import Acceptance
from conformance.generator import output_digests
from conformance.jsonio import write_json
from conformance.matrix import all_cases
from conformance.results import CaseResult, Results
from conformance.runner import Options, collect, make_jobs, open_out, run_jobs
from conformance.verdicts import Verdict
from ground_truth import Store, saved
from ground_truth.manifest import load
from reference_impl.tiny.build import cached
from reports.accept import acceptance as proposed

CASE = next(case for case in all_cases() if case.id == "ltx-2.3/one-stage-t2v/unguided@single+diffusers-bf16")
ENGINES = {"good": "fakes:good", "nudged": "fakes:nudged", "nan": "fakes:non_finite"}


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    given = (str(cached("ltx-2.3")), "0")
    monkeypatch.setattr(runner, "prepare_checkpoints", lambda models, options, on_place: dict.fromkeys(models, given))


def _run(out: Path, engine: str = "good", *references: str, **more: Any) -> dict[str, CaseResult]:
    first, *further = references or ("fakes:good",)
    options = Options(out=out, engine=ENGINES[engine], reference=first, further=tuple(further), timeout=60.0, **more)
    with open_out(out, resume=False):
        whole = collect([CASE], list(run_jobs(make_jobs([CASE], options), options)), options, time.time(), "test")
        write_json(out / "results.json", whole.as_dict())
    return {case.gate: case for case in whole.cases}


def _accept(run: Path, what: str, *more: str, reason: str = "better", expires: str = "2999-01-01") -> int:
    words = ["gt", "accept", str(run), CASE.id, "--as", what, "--reason", reason, "--owner", "ada"]
    return cli.main([*words, "--expires", expires, *more])


def _last(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_a_saved_sample_is_what_the_run_judged(tmp_path: Path) -> None:
    (result,) = _run(tmp_path).values()
    sample = saved.read(results.load(tmp_path / "results.json").cases[0], tmp_path)
    assert output_digests(sample) == result.outputs
    assert sample.trace.keys() >= {"noise/video", "latents/final/audio"}
    assert sample.tensors.keys() >= {"step.000/latents/video", "latents/final/audio"}
    assert sample.audio_rate == 16000


def test_an_accepted_output_is_the_reference_of_the_self_gate_until_it_changes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    store.mkdir()
    first = _run(tmp_path / "1", "good", "fakes:good", "self", store=store)
    assert first["self"].verdict == Verdict.NO_REFERENCE
    assert _accept(tmp_path / "1", "self", "--store", str(store)) == 0
    again = _run(tmp_path / "2", "good", "self", store=store)
    assert again["self"].verdict == Verdict.PASS_EXACT
    other = _run(tmp_path / "3", "nudged", "fakes:good", "self", store=store)
    assert other["self"].verdict == Verdict.FAIL
    capsys.readouterr()
    assert _accept(tmp_path / "3", "self", "--store", str(store)) == 0
    (path,) = Store(store).paths()
    entry, text = load(path), path.with_suffix(".txt").read_text()
    assert entry.accepted == Acceptance(reason="better", owner="ada", date=entry.created[:10], expires="2999-01-01")
    for words in ("latents/video: ", " -> ", "latents.rel_l2: ", "accepted by ada", "until 2999-01-01: better"):
        assert words in text
    assert text in capsys.readouterr().out
    assert _run(tmp_path / "4", "nudged", "self", store=store)["self"].verdict == Verdict.PASS_EXACT
    assert Store(store).verify()  # the replaced objects are orphans until they are pruned
    Store(store).prune()
    assert Store(store).verify() == []


def test_an_expired_output_is_stale(tmp_path: Path) -> None:
    store = tmp_path / "store"
    _run(tmp_path / "1")
    assert _accept(tmp_path / "1", "self", "--store", str(store)) == 0
    (path,) = Store(store).paths()
    entry = load(path)
    assert entry.accepted is not None
    ended = replace(entry.accepted, date="2020-01-01", expires="2020-01-02")
    path.write_text(replace(entry, accepted=ended).dump())
    found = _run(tmp_path / "2", "good", "self", store=store)["self"]
    assert found.verdict == Verdict.STALE_REFERENCE
    assert "until 2020-01-02: better; that day is over" in found.reason


def test_a_corrupted_golden_turns_the_self_gate_red(tmp_path: Path) -> None:
    store = tmp_path / "store"
    _run(tmp_path / "1")
    _accept(tmp_path / "1", "self", "--store", str(store))
    (path,) = Store(store).paths()
    for artifact in load(path).artifacts:
        if artifact.role in ("frame", "latents", "audio"):
            file = store / artifact.file
            whole = file.read_bytes()
            file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
            found = _run(tmp_path / "2", "good", "self", store=store)["self"]
            assert found.verdict == Verdict.INFRA_ERROR, artifact.name
            assert "was changed" in found.reason
            file.write_bytes(whole)


def test_a_gap_is_red_accepted_and_red_again_once_it_grows(tmp_path: Path) -> None:
    book = tmp_path / "cpu.json"
    book.write_text((ledger.SHIPPED / "cpu.json").read_text())
    asked = {"ledger": str(book)}
    first = _run(tmp_path / "1", "nudged", **asked)["reference"]
    assert (first.verdict, first.gap["state"]) == (Verdict.FAIL, "new")
    assert _accept(tmp_path / "1", "gap", "--ledger", str(book)) == 0
    second = _run(tmp_path / "2", "nudged", **asked)["reference"]
    assert second.gap["state"] == "known"
    assert second.verdict in (Verdict.PASS, Verdict.WAIVED)
    text = book.read_text()
    data = json.loads(text)
    data["gaps"][0]["sizes"]["latents.rel_l2"] /= 2
    book.write_text(json.dumps(data))
    assert _run(tmp_path / "3", "nudged", **asked)["reference"].gap["state"] == "grown"
    book.write_text(text)
    assert _run(tmp_path / "4", "good", **asked)["reference"].gap["state"] == "shrunk"


def test_what_is_not_accepted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    book = str(tmp_path / "cpu.json")
    (tmp_path / "cpu.json").write_text((ledger.SHIPPED / "cpu.json").read_text())
    _run(tmp_path / "good", ledger=book)
    run, words = tmp_path / "good", ("--ledger", book)
    assert _accept(run, "gap", *words) == 2
    assert "is exact; there is no gap" in _last(capsys)
    for more, said in (
        ({"reason": " "}, "'reason' is ' '"),
        ({"expires": "2020-01-01"}, "'expires' is '2020-01-01'; expected not before the date"),
        ({"expires": "soon"}, "a date, YYYY-MM-DD"),
    ):
        assert _accept(run, "self", **more) == 2
        assert said in _last(capsys)
    _run(tmp_path / "nan", "nan", ledger=book)
    for what in ("gap", "self"):
        assert _accept(tmp_path / "nan", what, *words, "--store", str(tmp_path / "store")) == 2
        assert "not finite" in _last(capsys)
    whole = results.load(run / "results.json")
    for field, said in (({"gate": "parallel"}, "'gate' is 'parallel'"), ({"verdict": Verdict.INCOMPARABLE}, "INCOMP")):
        case = replace(whole.cases[0], **{"verdict": Verdict.FAIL, "gap": {}, **field})
        write_json(run / "results.json", Results(run=whole.run, cases=(case,)).as_dict())
        assert _accept(run, "gap", *words) == 2
        assert said in _last(capsys)
    far = replace(whole.cases[0].metrics["mean_abs_diff"], limit=1.0, ok=False)
    metrics = {**whole.cases[0].metrics, "mean_abs_diff": far}
    case = replace(whole.cases[0], verdict=Verdict.FAIL, metrics=metrics)
    write_json(run / "results.json", Results(run=whole.run, cases=(case,)).as_dict())
    assert _accept(run, "gap", *words) == 2
    assert "violates its limit on mean_abs_diff" in _last(capsys)


def test_files_that_were_changed_after_the_run_are_not_accepted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _run(tmp_path / "a")
    _run(tmp_path / "b", "nudged")
    latents = [next((tmp_path / name).glob("cases/*/candidate.safetensors")) for name in ("a", "b")]
    latents[0].write_bytes(latents[1].read_bytes())
    assert _accept(tmp_path / "a", "self", "--store", str(tmp_path / "store")) == 2
    assert "latents/video is not what the run judged" in _last(capsys)
    assert not (tmp_path / "store").exists()


def test_no_environment_variable_accepts_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("UPDATE_GOLDEN", "SGLANG_GEN_GT", "CONFORMANCE_ACCEPT", "CONFORMANCE_UPDATE", "CI"):
        monkeypatch.setitem(os.environ, name, "1")
    store = tmp_path / "store"
    store.mkdir()
    _run(tmp_path / "1")
    _accept(tmp_path / "1", "self", "--store", str(store))
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    assert _run(tmp_path / "2", "nudged", "self", store=store)["self"].verdict == Verdict.FAIL
    assert {path: path.read_bytes() for path in store.rglob("*") if path.is_file()} == before


def test_diff_of_stores_entries_and_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, engine in (("a", "good"), ("b", "nudged")):
        _run(tmp_path / name, engine)
        _accept(tmp_path / name, "self", "--store", str(tmp_path / f"store-{name}"))
    capsys.readouterr()
    a, b = (Store(tmp_path / f"store-{name}") for name in "ab")
    sides = [(a.root, b.root), (a.paths()[0], b.paths()[0]), (a.root, tmp_path / "b")]
    sides.append((tmp_path / "a" / "results.json", b.paths()[0]))
    for old, new in sides:
        assert cli.main(["gt", "--json", "-", "diff", str(old), str(new)]) == 1
        (pair,) = json.loads(capsys.readouterr().out)["pairs"]
        assert pair["case"] == CASE.id
        assert pair["old"].keys() == pair["new"].keys() == {"latents/video"}
        assert 0.9e-6 < pair["metrics"]["latents.rel_l2"] < 1.1e-6
    assert cli.main(["gt", "diff", str(a.root), str(tmp_path / "a")]) == 0
    assert "equal bit for bit" in capsys.readouterr().out
    (tmp_path / "empty" / "manifests").mkdir(parents=True)
    assert cli.main(["gt", "diff", str(a.root), str(tmp_path / "empty")]) == 1
    assert f"{CASE.id} (self): only in A" in capsys.readouterr().out
    assert cli.main(["gt", "diff", str(a.root), str(tmp_path)]) == 2
    assert "is no store, manifest or run" in capsys.readouterr().err


def _patch(run: Path, file: Path, **changes: Any) -> Path:
    """What the page of a run with two gates downloads, for its gate self."""
    whole = results.load(run / "results.json")
    case = next(case for case in whole.cases if case.gate == "self")
    entry = json.loads(proposed(run, case)) | {"reason": "rounds\nonce less", "owner": "ada", "expires": "2999-01-01"}
    write_json(file, {"schema": "conformance.accept/1", "results": {}, "entries": [entry | changes]})
    return file


def test_a_patch_of_the_page_is_applied_to_the_run_it_was_made_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, run = tmp_path / "store", tmp_path / "run"
    store.mkdir()
    _run(tmp_path / "first", "good", "fakes:good", "self", store=store)
    assert _accept(tmp_path / "first", "self", "--store", str(store)) == 0
    assert _run(run, "nudged", "fakes:good", "self", store=store)["self"].verdict == Verdict.FAIL
    words = ["--store", str(store)]
    for changes, said in (
        ({"job": "another"}, "entries[0]: 'job' is 'another'"),
        ({"new": {"frames": "0"}}, "entries[0]: 'new' is {'frames': '0'}"),
        ({"gate": "parallel"}, "the run holds no such result"),
        ({"case": "ltx-2/none"}, "the run holds no such result"),
        ({"owner": " "}, "'owner' is ' '"),
        ({"expires": "2020-01-01"}, "'expires' is '2020-01-01'"),
        ({"reason": 3}, "'reason' is 3"),
    ):
        before = {path: path.read_bytes() for path in Store(store).paths()}
        assert cli.main(["gt", "apply", str(run), str(_patch(run, tmp_path / "p.json", **changes)), *words]) == 2
        assert said in _last(capsys)
        assert before == {path: path.read_bytes() for path in Store(store).paths()}
    assert cli.main(["gt", "apply", str(run), str(_patch(run, tmp_path / "p.json")), *words]) == 0
    (path,) = Store(store).paths()
    assert (made := load(path).accepted) is not None
    assert (made.reason, made.owner) == ("rounds once less", "ada")
    assert _run(tmp_path / "again", "nudged", "self", store=store)["self"].verdict == Verdict.PASS_EXACT


@pytest.mark.parametrize(
    "text", ["[]", '{"schema": "conformance.accept/2"}', '{"schema": "conformance.accept/1", "entries": []}']
)
def test_what_is_no_patch(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    _run(tmp_path)
    (tmp_path / "p.json").write_text(text)
    assert cli.main(["gt", "apply", str(tmp_path), str(tmp_path / "p.json")]) == 2
    assert "p.json" in _last(capsys)
