from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gt_samples import CASE, CHECKPOINT, GET, LEDGER, PUT, sample
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from conformance.case import Layout
from conformance.errors import InputError, ReferenceMissing, ReferenceStale
from conformance.generator import Sample, Tap, tensor_digest
from conformance.jsonio import jsonable
from ground_truth import Store


def same(loaded: Sample, stored: Sample) -> None:
    """``loaded`` is what of ``stored`` the store promises to keep, bit for bit."""
    np.testing.assert_array_equal(loaded.frames, stored.frames)
    assert loaded.frames.dtype == np.uint8
    assert loaded.frames_float is None
    assert loaded.audio_rate == stored.audio_rate
    if stored.audio is None:
        assert loaded.audio is None
    else:
        assert loaded.audio is not None
        assert loaded.audio.dtype == np.float32
        np.testing.assert_array_equal(loaded.audio, stored.audio)
    kept = {name: value for name, value in stored.tensors.items() if name != "noise/video"}
    for mine, theirs in ((loaded.latents, stored.latents), (loaded.tensors, kept)):
        assert mine.keys() == theirs.keys()
        for name, value in theirs.items():
            assert tensor_digest(mine[name]) == tensor_digest(value)
    assert list(loaded.trace.items()) == list(stored.trace.items())
    assert loaded.resolved == jsonable(stored.resolved)
    assert loaded.ledger == {**stored.ledger, **LEDGER}
    assert loaded.shared == stored.shared


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(*[st.integers(1, 3)] * 2, *[st.integers(1, 9)] * 2),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    audio=st.booleans(),
    odd=st.sampled_from([0.0, float("nan"), float("inf"), -float("inf")]),
)
def test_round_trip(seed: int, shape: tuple[int, int, int, int], dtype: torch.dtype, audio: bool, odd: float) -> None:
    stored = sample(seed, shape, dtype)
    stored.latents["video"][0, 0] = odd
    if not audio:
        stored.audio = stored.audio_rate = None
    stored.trace = {**stored.trace, "odd": replace(Tap.of(torch.ones(2)), max_abs=-odd if odd == odd else 1.0)}
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        path = store.put(CASE, stored, **PUT)
        same(store.get(CASE, **GET), stored)
        assert store.verify() == []
        assert [entry.case_id for entry in store.entries()] == [CASE.id]
        before = {item: item.stat().st_mtime_ns for item in Path(folder).rglob("*") if item.is_file()}
        assert store.put(CASE, stored, **PUT) == path
        assert before == {item: item.stat().st_mtime_ns for item in Path(folder).rglob("*") if item.is_file()}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    store.put(CASE, sample(), **PUT)
    return store


def test_manifest_says_what_it_is(store: Store) -> None:
    (entry,) = store.entries()
    assert (entry.kind, entry.generator, entry.reason) == ("diffusers", "diffusers", "first reference")
    assert (entry.case_digest, entry.checkpoint) == (CASE.digest, CHECKPOINT)
    assert entry.ledger["versions"] == LEDGER["versions"]
    assert entry.created.endswith("+00:00")
    roles = [artifact.role for artifact in entry.artifacts]
    assert roles == ["frame", "frame", "latents", "taps", "audio", "trace"]
    frame = store.root / entry.artifacts[0].file
    np.testing.assert_array_equal(np.asarray(Image.open(frame)), sample().frames[0, 0])


def test_kinds_and_cases_are_separate_references(store: Store) -> None:
    other = replace(CASE, layout=replace(Layout.single(), tp=2))
    store.put(CASE, sample(1), **{**PUT, "kind": "self"})
    store.put(other, sample(2), **PUT)
    for case, kind, seed in ((CASE, "diffusers", 0), (CASE, "self", 1), (other, "diffusers", 2)):
        same(store.get(case, **{**GET, "kind": kind}), sample(seed))
    assert len(store.entries()) == 3


def test_replacing_leaves_orphans_that_prune_removes(store: Store) -> None:
    store.put(CASE, sample(1), **{**PUT, "reason": "new schedule"})
    assert [entry.reason for entry in store.entries()] == ["new schedule"]
    problems = store.verify()
    assert len(problems) == 6
    assert all("orphan" in problem for problem in problems)
    assert len(store.prune()) == 6
    assert store.verify() == []
    same(store.get(CASE, **GET), sample(1))


def test_missing(store: Store, tmp_path: Path) -> None:
    for empty, kind in ((store, "official"), (Store(tmp_path / "none"), "diffusers")):
        with pytest.raises(ReferenceMissing, match=r"no .* reference of"):
            empty.get(CASE, **{**GET, "kind": kind})
    assert Store(tmp_path / "none").verify() == []
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="must be a folder"):
        Store(tmp_path / "file")


def changed(name: str, value: str) -> dict[str, Any]:
    return {**GET, "ledger": {**LEDGER, "versions": {**LEDGER["versions"], name: value}}}


@pytest.mark.parametrize(
    ("what", "arguments"),
    [
        ("environment torch was '2.13.0', is '2.11.0'", changed("torch", "2.11.0+cpu")),
        ("environment diffusers was '0.42.1', is 'absent'", changed("diffusers", "absent")),
        ("environment transformers was '5.23.0', is '5.24.0'", changed("transformers", "5.24.0")),
        (
            "environment device was 'cpu', is 'NVIDIA H200'",
            {**GET, "ledger": {**LEDGER, "device": {"name": "NVIDIA H200"}}},
        ),
        ("checkpoint vae was 'bbbb", {**GET, "checkpoint": {**CHECKPOINT, "vae": "c" * 64}}),
        ("checkpoint vae was 'bbbb", {**GET, "checkpoint": {"transformer": "a" * 64}}),
        ("checkpoint vocoder was None", {**GET, "checkpoint": {**CHECKPOINT, "vocoder": "c" * 64}}),
    ],
)
def test_stale_names_what_differs(store: Store, what: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(ReferenceStale) as error:
        store.get(CASE, **arguments)
    assert what in str(error.value)
    assert ";" not in str(error.value)


def test_stale_names_the_field_of_the_case(store: Store) -> None:
    for case, what in (
        (replace(CASE, request=replace(CASE.request, seed=CASE.request.seed + 1)), "case request.seed was"),
        (replace(CASE, checkpoint="other"), "case checkpoint was 'tiny', is 'other'"),
    ):
        assert case.id == CASE.id
        with pytest.raises(ReferenceStale, match=what):
            store.get(case, **GET)


def test_what_cannot_change_a_bit_is_not_stale(store: Store) -> None:
    store.get(replace(CASE, suites=("other",)), **GET)
    store.get(CASE, **changed("torch", "2.13.0+cu130"))
    store.get(CASE, **changed("numpy", "2.3.0"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"frames": np.zeros((1, 2, 4, 6, 3), np.float32)}, "'frames' is 'float32"),
        ({"frames": np.zeros((2, 4, 6, 3), np.uint8)}, "'frames' is"),
        ({"frames": np.zeros((1, 0, 4, 6, 3), np.uint8)}, "'frames' is"),
        ({"audio": None}, "'audio_rate' is 24000"),
        ({"audio": np.zeros((1, 2, 3))}, "'audio' is 'float64"),
        ({"resolved": {"height": 1}}, "lacks 'width'"),
    ],
)
def test_an_incomplete_sample_is_not_stored(store: Store, fields: dict[str, Any], message: str) -> None:
    before = store.paths()[0].read_text()
    with pytest.raises(InputError, match=message):
        store.put(CASE, replace(sample(), **fields), **PUT)
    assert store.paths()[0].read_text() == before


@pytest.mark.parametrize("name", ["kind", "generator", "reason", "ledger"])
def test_put_needs_its_arguments(store: Store, name: str) -> None:
    with pytest.raises(InputError, match=name):
        store.put(CASE, sample(), **{**PUT, name: {} if name == "ledger" else " "})
