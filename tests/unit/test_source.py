"""What ``--checkpoint`` may name, and the hub without a network."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import errors

from conformance import checkpoint, cli, hub
from conformance.errors import InputError
from conformance.source import Source, resolve
from reference_impl.tiny import official_file
from reference_impl.tiny.build import cached


class Hub:
    """Stands for ``snapshot_download``: answers for the cache and for the network, and records what it was asked."""

    def __init__(self, cache: Path | Exception, network: Path | Exception) -> None:
        self.answers = {True: cache, False: network}
        self.calls: list[dict[str, Any]] = []

    def __call__(self, repository: str, **options: Any) -> str:
        self.calls.append({"repository": repository, **options})
        answer = self.answers[options["local_files_only"]]
        if isinstance(answer, Exception):
            raise answer
        return str(answer)


ABSENT = errors.LocalEntryNotFoundError("not in the cache\nand a second line")


def http(kind: type[Exception]) -> Exception:
    """An error of the library as it raises them, without the response that it carries."""
    error = kind.__new__(kind)
    error.args = ("404 Client Error\n\nRepository Not Found",)
    return error


def install(monkeypatch: pytest.MonkeyPatch, cache: Path | Exception, network: Path | Exception) -> Hub:
    fake = Hub(cache, network)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake)
    return fake


def ask(checkpoint: str, **parts: str) -> Path:
    return resolve(Source(checkpoint=checkpoint, **parts), lambda place: None)


def test_a_folder_is_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = install(monkeypatch, ABSENT, ABSENT)
    assert ask(str(cached("ltx-2"))) == cached("ltx-2").resolve()
    (tmp_path / "org").mkdir()
    (tmp_path / "org" / "name").symlink_to(cached("ltx-2"))
    monkeypatch.chdir(tmp_path)
    assert ask("org/name") == cached("ltx-2").resolve()  # a path that exists is a path
    assert not fake.calls


def test_an_official_file_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, file = cached("ltx-2.3"), official_file.cached("ltx-2.3")
    monkeypatch.setenv("CONFORMANCE_CACHE", str(tmp_path))
    found = ask(str(file), text_encoder=str(folder), upsampler=str(folder / "latent_upsampler"))
    assert checkpoint.digests(found) == checkpoint.digests(folder)
    assert found.is_relative_to(tmp_path)
    assert (found / "latent_upsampler").is_dir()


@pytest.mark.parametrize("name", ["text_encoder", "upsampler", "lora"])
def test_parts_go_with_an_official_file_only(name: str, tmp_path: Path) -> None:
    flag = f"--{name.replace('_', '-')}"
    for checkpoint_ in (str(cached("ltx-2")), "org/name"):
        with pytest.raises(InputError, match=f"{flag}: goes with an official file; .* is a folder or a hub id"):
            ask(checkpoint_, **{name: str(tmp_path)})


def test_an_official_file_needs_a_text_encoder() -> None:
    with pytest.raises(InputError, match="an official file has no text encoder; expected --text-encoder too"):
        ask(str(official_file.cached("ltx-2")))


@pytest.mark.parametrize(
    "value",
    ["nothing", "a/b/c", "./a/b", "../name", "a b/c", "/no/such/folder", "org/", "größe/x", "org/x.safetensors"],
)
def test_anything_else_is_told_the_three_forms(value: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    fake = install(monkeypatch, ABSENT, ABSENT)
    with pytest.raises(
        InputError, match=r"does not exist; expected a diffusers folder, an official .* file or a hub id"
    ):
        ask(value)
    assert not fake.calls


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    path.write_bytes(b"pickle")
    with pytest.raises(InputError, match=r"model\.ckpt: expected a diffusers folder, an official"):
        ask(str(path), text_encoder=str(tmp_path))


def test_a_damaged_folder_is_refused(tmp_path: Path) -> None:
    folder = shutil.copytree(cached("ltx-2"), tmp_path / "folder")
    (folder / "vae" / "config.json").unlink()
    with pytest.raises(InputError, match=r"vae/config\.json: file is missing"):
        ask(str(folder))


def test_the_hubs_cache_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = install(monkeypatch, cached("ltx-2"), ABSENT)
    assert ask("org/na.me-1") == cached("ltx-2")
    assert [call["local_files_only"] for call in fake.calls] == [True]


def test_what_the_cache_lacks_is_downloaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    partial = shutil.copytree(cached("ltx-2"), tmp_path / "partial")
    (partial / "vae" / "config.json").unlink()
    incomplete = errors.IncompleteSnapshotError("half", snapshot_path=str(partial))
    for cache in (ABSENT, incomplete, partial):
        fake = install(monkeypatch, cache, cached("ltx-2"))
        assert ask("org/name") == cached("ltx-2")
        assert [call["local_files_only"] for call in fake.calls] == [True, False]
        assert {call["repository"] for call in fake.calls} == {"org/name"}


def test_only_what_is_needed_is_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.utils import filter_repo_objects

    fake = install(monkeypatch, ABSENT, cached("ltx-2"))
    ask("org/name")
    call = fake.calls[-1]
    wanted = [
        "model_index.json",
        "transformer/config.json",
        "transformer/diffusion_pytorch_model-00001-of-00008.safetensors",
        "transformer/diffusion_pytorch_model.safetensors.index.json",
        "latent_upsampler/diffusion_pytorch_model.safetensors",
        "text_encoder/model-00001-of-00011.safetensors",
        "tokenizer/tokenizer.model",
        "scheduler/scheduler_config.json",
        "ltx-2-19b-distilled-lora-384.safetensors",
    ]
    rest = [
        "ltx-2-19b-dev.safetensors",
        "ltx-2-19b-dev-fp8.safetensors",
        "ltx-2-spatial-upscaler-x2-1.0.safetensors",
        "text_encoder/pytorch_model.bin",
        "README.md",
        "media/example.mp4",
        "ltx-2-19b-distilled-lora-384.bin",
    ]
    options = {name: call[name] for name in ("allow_patterns", "ignore_patterns")}
    assert list(filter_repo_objects([*wanted, *rest], **options)) == wanted


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            http(errors.RepositoryNotFoundError),
            "no such folder here and no such repository on the hub, or a private one",
        ),
        (
            http(errors.GatedRepoError),
            r"access is restricted; accept its terms on the hub and log in \(`hf auth login`\)",
        ),
        (ABSENT, r"not in the hub's cache, and the hub cannot be reached \(not in the cache\)"),
        (errors.OfflineModeIsEnabled("HF_HUB_OFFLINE is set"), r"cannot be downloaded \(HF_HUB_OFFLINE is set\)"),
        (http(errors.RevisionNotFoundError), r"cannot be downloaded \(404 Client Error\)"),
        (OSError(28, "No space left on device"), r"cannot be downloaded \(.*No space left on device\)"),
        (ConnectionResetError(), r"cannot be downloaded \(ConnectionResetError\)"),
    ],
)
def test_the_hub_says_no(error: Exception, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, ABSENT, error)
    with pytest.raises(InputError, match=f"^--checkpoint org/name: {message}$") as caught:
        hub.snapshot("org/name", lambda place: None)
    assert "\n" not in str(caught.value)


def test_an_interrupted_download_is_not_run_with(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, ABSENT, shutil.copytree(cached("ltx-2") / "vae", tmp_path / "half"))
    with pytest.raises(InputError, match=r"model_index.json: file is missing"):
        ask("org/name")


def test_parts_without_a_checkpoint(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    case = "ltx-2/one-stage-t2v/unguided@single+diffusers-fp32"
    assert cli.main(["run", case, "--out", str(tmp_path / "out"), "--text-encoder", "x"]) == 2
    assert "--text-encoder: goes with --checkpoint, an official file" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_run_from_an_official_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Through the command line; engine and reference read the folder that was unpacked."""
    case = "ltx-2/one-stage-t2v/unguided@single+diffusers-fp32"
    file, folder = official_file.cached("ltx-2"), cached("ltx-2")
    command = ["run", case, "--out", str(tmp_path / "out"), "--checkpoint", str(file), "--text-encoder", str(folder)]
    assert cli.main(command) == 0
    shown = capsys.readouterr()
    assert "1 PASS_EXACT" in shown.out
    assert "checkpoint: another configuration of the ltx-2 architecture (" in shown.err
