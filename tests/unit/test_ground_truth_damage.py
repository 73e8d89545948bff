from __future__ import annotations

import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gt_samples import CASE, GET, PUT, sample
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance.acceptance import Acceptance
from conformance.errors import InputError
from ground_truth import Store
from ground_truth.manifest import load


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    store.put(CASE, sample(), **PUT)
    return store


ARTIFACTS = ["frames/b00/f0000", "frames/b00/f0001", "latents", "taps", "audio", "trace"]


@pytest.mark.parametrize("name", ARTIFACTS)
@pytest.mark.parametrize("damage", ["flip", "truncate", "extend", "delete", "symlink", "folder"])
def test_a_tampered_artifact_is_red(store: Store, tmp_path: Path, name: str, damage: str) -> None:
    (artifact,) = [item for item in store.entries()[0].artifacts if item.name == name]
    path = store.root / artifact.file
    data = bytearray(path.read_bytes())
    path.unlink()
    if damage == "flip":
        data[-1] ^= 1
        path.write_bytes(data)
    elif damage == "truncate":
        path.write_bytes(data[:-1])
    elif damage == "extend":
        path.write_bytes(data + b"\0")
    elif damage == "symlink":
        (tmp_path / "outside").write_bytes(data)
        path.symlink_to(tmp_path / "outside")
    elif damage == "folder":
        path.mkdir()
    with pytest.raises(InputError) as error:
        store.get(CASE, **GET)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert ("bytes; expected" in str(error.value)) is (damage in ("truncate", "extend"))
    assert [problem for problem in store.verify() if str(path) in problem]
    if damage != "delete":
        with pytest.raises(InputError):
            store.put(CASE, sample(), **PUT)


def edit(store: Store, **fields: Any) -> Path:
    """Rewrite the manifest with a digest that fits: an edit by somebody who knows the format."""
    (path,) = store.paths()
    path.write_text(replace(load(path), **fields).dump())
    return path


def test_an_edited_manifest_is_red(store: Store) -> None:
    (path,) = store.paths()
    data = json.loads(path.read_text())
    for name in data:
        path.write_text(json.dumps({**data, name: 7}))
        with pytest.raises(InputError):
            store.get(CASE, **GET)
        assert str(path) in store.verify()[0]
    path.write_text(json.dumps({**data, "reason": "no reason"}))
    assert "was changed after it was written" in store.verify()[0]


@pytest.mark.parametrize("sha256", ["../" * 21 + "x", "/etc/passwd", "A" * 64, "a" * 63, "a" * 64 + "\n", 7])
def test_no_artifact_leads_out_of_the_store(store: Store, sha256: Any) -> None:
    artifacts = store.entries()[0].artifacts
    edit(store, artifacts=(replace(artifacts[0], sha256=sha256), *artifacts[1:]))
    assert "'sha256' is" in store.verify()[0]
    with pytest.raises(InputError, match="64 hexadecimal digits"):
        store.get(CASE, **GET)


def test_a_linked_object_folder_leads_out_of_the_store(store: Store, tmp_path: Path) -> None:
    (store.root / "objects").rename(tmp_path / "objects")
    (store.root / "objects").symlink_to(tmp_path / "objects")
    assert "leads outside" in store.verify()[0]
    with pytest.raises(InputError, match="leads outside"):
        store.get(CASE, **GET)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "guess"}, "'kind' is 'guess'"),
        ({"frames": (1, 1, 4, 6, 3)}, "lists 2 frames"),
        ({"frames": (1, 2, 4, 7, 3)}, "expected \\(4, 7, 'RGB'\\)"),
        ({"frames": (1, 2, 10**12, 10**12, 3)}, "fits in memory"),
        ({"frames": (1, 2, 4, 6)}, "a shape"),
        ({"audio_rate": None}, "artifact 'audio'"),
        ({"audio_rate": 0.5}, "'audio_rate' is 0.5"),
        ({"case_digest": "0" * 64}, "digest of 'case'"),
        ({"checkpoint": {"vae": 1}}, "checkpoint.vae"),
        ({"ledger": {}}, "ledger lacks versions"),
        ({"artifacts": ()}, "lists 0 frames"),
        ({"reason": " "}, "'reason' is ' '"),
        ({"accepted": Acceptance(reason="r", owner=" ", date="2026-01-01", expires="2026-01-01")}, "'owner' is ' '"),
        ({"accepted": Acceptance(reason="r", owner="o", date="2026-01-01", expires="never")}, "'expires' is 'never'"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_red(store: Store, fields: dict[str, Any], message: str) -> None:
    path = edit(store, **fields)
    with pytest.raises(InputError, match=message) as error:
        store.get(CASE, **GET)
    assert str(path) in str(error.value)
    assert str(path) in store.verify()[0]


def test_swapped_artifacts_are_red(store: Store) -> None:
    artifacts = store.entries()[0].artifacts
    by_name = {item.name: item for item in artifacts}
    swapped = {"frames/b00/f0000": "taps", "taps": "latents", "latents": "audio", "audio": "taps", "trace": "latents"}
    for name, other in swapped.items():
        wrong = replace(by_name[other], name=name)
        edit(store, artifacts=tuple(wrong if item.name == name else item for item in artifacts))
        with pytest.raises(InputError, match=r"wrong role|lists 1 frames"):
            store.get(CASE, **GET)
        assert store.verify()


def test_duplicates_and_orphans_are_red(store: Store) -> None:
    (path,) = store.paths()
    copy = path.with_name(f"copy-{path.name}")
    os.link(path, copy)
    assert [problem for problem in store.verify() if str(copy) in problem and str(path) in problem]
    copy.unlink()
    (store.root / "objects" / "stray.png").write_bytes(b"")
    assert store.verify() == [f"{store.root / 'objects' / 'stray.png'}: orphan: no manifest refers to it"]


@settings(max_examples=60)
@given(st.data())
def test_a_fuzzed_manifest_never_raises_anything_else(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        path = store.put(CASE, sample(shape=(1, 1, 1, 1)), **PUT)
        content = json.loads(path.read_text())
        name = data.draw(st.sampled_from(sorted(content.keys() - {"accepted"})))  # which may well be null
        junk = st.none() | st.integers() | st.floats() | st.text() | st.lists(st.integers() | st.text(), max_size=5)
        content[name] = data.draw(junk | st.dictionaries(st.text(), junk, max_size=2))
        path.write_text(json.dumps(content))
        assert store.verify()
        with pytest.raises(InputError):
            store.get(CASE, **GET)
