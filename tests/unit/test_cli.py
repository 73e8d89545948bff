"""The command line: one clear line for bad input, exit codes, JSON on standard output and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conformance import cli, runner, worker
from conformance.matrix import all_cases

CASE = "ltx-2.3/one-stage-t2v/unguided@single+diffusers-bf16"


@pytest.fixture
def no_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        runner, "prepare_checkpoints", lambda models, options, on_place: dict.fromkeys(models, ("/none", "0"))
    )


def _images(folder: Path, count: int = 2, *, size: tuple[int, int] = (48, 32), seed: int = 0) -> Path:
    folder.mkdir()
    random = np.random.default_rng(seed)
    for index in range(count):
        pixels = random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:03d}.png")
    return folder


def _refused(arguments: list[str], capsys: pytest.CaptureFixture[str], *words: str) -> None:
    """The command ends with exit code 2 and exactly one line, which holds the words."""
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()
    last = error[-1]
    assert last.startswith("conformance: error: ")
    assert not any("Traceback" in line for line in error)
    for word in words:
        assert word in last, last


def test_help_answers_at_once_because_nothing_heavy_is_imported() -> None:
    program = "import sys; from conformance import cli; cli.parser(); print([m for m in HEAVY if m in sys.modules])"
    heavy = "HEAVY = ('torch', 'numpy', 'diffusers', 'PIL', 'jinja2', 'rich'); "
    out = subprocess.run([sys.executable, "-c", heavy + program], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
    times = []
    for _ in range(3):
        started = time.monotonic()
        subprocess.run([sys.executable, "-m", "conformance.cli", "--help"], capture_output=True, check=True)
        times.append(time.monotonic() - started)
    assert min(times) < 0.5


def test_list_prints_every_id_and_json_alone_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list"]) == 0
    assert capsys.readouterr().out.split() == [case.id for case in all_cases()]
    assert cli.main(["list", "ltx-2.3", "--json", "-"]) == 0
    assert {entry["model"] for entry in json.loads(capsys.readouterr().out)["cases"]} == {"ltx-2.3"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "ltx-7"], ["no case matches 'ltx-7'"]),
        (["run", "--suite", "nightly"], ["suite", "nightly", "default"]),
        (["run", "--shard", "5/4"], ["shard", "5/4", "i/n"]),
        (["run", "--resume"], ["holds no run"]),
        (["report", "none.json", "--out", "merged"], ["none.json", "cannot be read"]),
        (["compare", "a", "b"], ["a"]),
    ],
)
def test_bad_arguments_are_one_line(
    arguments: list[str],
    words: list[str],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    _refused(arguments, capsys, *words)


@pytest.mark.parametrize("flag", [["--threads", "0"], ["--timeout", "-1"], ["--jobs", "x"], ["--device", "abacus"]])
def test_bad_numbers_are_refused_before_anything_starts(flag: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["run", *flag])
    assert end.value.code == 2
    assert flag[0] in capsys.readouterr().err


@pytest.mark.usefixtures("no_checkpoint")
def test_a_run_writes_everything_and_returns_the_gates_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # as wide as a log
    out, junit = tmp_path / "out", tmp_path / "ci" / "junit.xml"
    good = [
        "run",
        CASE,
        "--engine",
        "fakes:good",
        "--reference",
        "fakes:good",
        "--out",
        str(out),
        "--junit",
        str(junit),
    ]
    assert cli.main([*good, "--json", "-"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["counts"] == {"PASS_EXACT": 1}
    for name in ("index.html", "results.json", "junit.xml", "summary.md"):
        assert (out / name).is_file(), name
    assert junit.is_file()
    assert cli.main([*good[:3], "fakes:unsupporting", *good[4:]]) == 4
    text = capsys.readouterr().out
    assert CASE in text
    assert str(out / "index.html") in text


@pytest.mark.parametrize("spec", ["nowhere:build", "fakes:none", "fakes", "fakes:FAULTS"])
def test_an_engine_that_cannot_be_imported_is_named_before_anything_runs(
    spec: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _refused(["run", CASE, "--engine", spec, "--out", str(tmp_path / "out")], capsys, f"generator {spec!r}")
    assert not (tmp_path / "out" / "cases").exists()


def test_an_engine_beside_the_user_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "beside_the_user.py").write_text("def build(checkpoint, device): ...")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert worker.factory("beside_the_user:build").__name__ == "build"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["run", CASE, "--out", "/proc/out"], "--out /proc/out: cannot be written"),
        (["run", CASE, "--json", "/proc/x.json"], "--json /proc/x.json: cannot be written"),
        (["run", CASE, "--junit", "/proc/x.xml"], "--junit /proc/x.xml: cannot be written"),
        (["report", "x.json", "--out", "/proc/out"], "--out /proc/out"),
        (["compare", "a", "b", "--limit", "ssim=nan"], "METRIC=VALUE"),
        (["compare", "a", "b", "--limit", "ssim=0.9", "--limit", "ssim=0.1"], "one limit on ssim"),
        (["run", CASE, "--clip", "bogus"], "clip: 'spec' is 'bogus'"),
        (["run", CASE, "--reference", "stored", "--store", "nowhere"], "--store nowhere: no such folder"),
        (["gt", "verify", "--store", "nowhere"], "--store nowhere: no such folder"),
        (["gt", "build", CASE, "--reason", " "], "'reason' is ' '"),
    ],
)
def test_what_cannot_work_is_said_before_the_work(
    more: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    _refused(more, capsys, words)


def test_a_missing_device_is_a_wrong_argument(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    _refused(["run", CASE, "--device", "cuda", "--out", str(tmp_path / "out")], capsys, "torch sees no CUDA device")


@pytest.mark.parametrize(("error", "traceback"), [(OSError(28, "No space left"), False), (KeyError("x"), True)])
def test_an_unforeseen_error_is_never_the_code_of_a_numeric_failure(
    error: Exception, traceback: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(options: object) -> int:
        raise error

    monkeypatch.setattr("conformance.commands.list.main", fail)
    assert cli.main(["list"]) == 3
    assert ("Traceback" in capsys.readouterr().err) == traceback


def test_a_missing_and_a_corrupt_checkpoint_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _refused(
        ["run", CASE, "--checkpoint", str(tmp_path / "no"), "--out", str(tmp_path / "o1")], capsys, str(tmp_path / "no")
    )
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model_index.json").write_text("{")
    _refused(["run", CASE, "--checkpoint", str(tmp_path / "model"), "--out", str(tmp_path / "o2")], capsys, "model")


@pytest.mark.usefixtures("no_checkpoint")
def test_thresholds_without_evidence_are_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "limits.json"
    path.write_text(
        json.dumps(
            {"schema": "conformance.thresholds/2", "cohort": {}, "entries": [{"case": CASE, "limits": {"ssim": 0.9}}]}
        )
    )
    _refused(["run", CASE, "--thresholds", str(path), "--out", str(tmp_path / "out")], capsys, str(path))


def test_compare_judges_what_is_on_disk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = _images(tmp_path / "a"), _images(tmp_path / "b", seed=1)
    out = ["--out", str(tmp_path / "out"), "--json", "-"]
    assert cli.main(["compare", str(a), str(a), *out]) == 0
    assert json.loads(capsys.readouterr().out)["counts"] == {"PASS_EXACT": 1}
    assert cli.main(["compare", str(a), str(b), "--limit", "ssim=0.9", *out]) == 1
    assert cli.main(["compare", str(a), str(b), "--limit", "ssim=-1", *out]) == 0
    capsys.readouterr()
    assert cli.main(["compare", str(a), str(b), *out]) == 4, "no limits: not judged, and not a pass"
    assert (tmp_path / "out" / "index.html").is_file()


def test_compare_refuses_what_it_cannot_pair(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, longer = _images(tmp_path / "a"), _images(tmp_path / "longer", 3)
    other = _images(tmp_path / "other", size=(32, 48))
    out = ["--out", str(tmp_path / "out")]
    _refused(["compare", str(a), str(longer), *out], capsys, "002")
    _refused(["compare", str(a), str(other), *out], capsys, "000.png")
    _refused(["compare", str(a), str(a / "000.png"), *out], capsys)
    _refused(["compare", str(a), str(a), "--limit", "beauty=1", *out], capsys, "beauty")
    _refused(["compare", str(a), str(a), "--limit", "ssim=high", *out], capsys, "ssim=high")
    Image.fromarray(np.zeros((32, 48, 4), np.uint8), "RGBA").save(tmp_path / "rgba.png")
    Image.fromarray(np.zeros((32, 48), np.uint16)).save(tmp_path / "deep.png")
    _refused(["compare", str(tmp_path / "rgba.png"), str(a / "000.png"), *out], capsys, "rgba.png", "RGBA")
    _refused(["compare", str(tmp_path / "deep.png"), str(a / "000.png"), *out], capsys, "deep.png", "16")


def test_a_tampered_store_is_red(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = tmp_path / "store"
    store.mkdir()
    assert cli.main(["gt", "verify", "--store", str(store)]) == 0
    (store / "objects" / "ab").mkdir(parents=True)
    (store / "objects" / "ab" / ("ab" + "0" * 62)).write_bytes(b"not what its name says")
    assert cli.main(["gt", "verify", "--store", str(store)]) == 1
    assert "ab000" in capsys.readouterr().out


def test_doctor_answers(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--json", "-"]) in (0, 3)
    assert json.loads(capsys.readouterr().out)["checks"]
