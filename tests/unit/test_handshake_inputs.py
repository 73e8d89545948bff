"""Noise, embeddings, noise levels, positions, weights, picture: hashed by both sides, and each difference is named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from conformance.case import Case
from conformance.defects.engine import no_frame_rate
from conformance.defects.variants import Variant, variant
from conformance.gates import judge
from conformance.generator import HANDSHAKE, Probe, Sample
from conformance.handshake import handshake
from conformance.matrix import all_cases
from conformance.verdicts import Verdict
from conformance.worker import factory
from engine.generator import build
from engine.pipelines import ltx2 as pipeline
from reference_impl.tiny.build import cached
from thresholds import Thresholds

CASE = next(case for case in all_cases() if case.id == "ltx-2.3/one-stage-ti2v/unguided@single+diffusers-bf16")
_pack_noise = pipeline.pack_noise
_text = pipeline.Run.text


def _other_noise(*inputs: Any) -> Any:
    noise = _pack_noise(*inputs)
    return noise | {"audio": noise["audio"] + 2**-10}


def _other_text(self: pipeline.Run) -> Any:
    states, text = _text(self)
    states["pos"] = replace(states["pos"], embeds=torch.zeros_like(states["pos"].embeds))  # type: ignore[arg-type]
    return states, text


def _run(case: Case = CASE, engine: Variant | None = None, folder: Path | None = None) -> Sample:
    plain = _loaded() if folder is None else build(folder, "cpu")
    return (engine.around(plain) if engine else plain).generate(case, Probe(depth="step", keep=False))


@cache
def _loaded() -> Any:
    return build(cached(CASE.model), "cpu")


@cache
def _plain() -> Sample:
    return _run()


def _said(other: Sample) -> str:
    result = judge(CASE, "reference", other, _plain(), thresholds=Thresholds({}), clip=None)
    assert result.verdict == Verdict.INCOMPARABLE
    return result.reason


def _with(**fields: Any) -> Case:
    return replace(CASE, request=replace(CASE.request, **fields))


def _of_picture() -> Case:
    assert CASE.request.image is not None
    return _with(image=replace(CASE.request.image, crf=CASE.request.image.crf + 10))


def _sigmas() -> Case:
    assert CASE.request.sigmas is not None
    return _with(sigmas=(*CASE.request.sigmas[:-1], CASE.request.sigmas[-1] * 1.001))


@pytest.mark.parametrize(
    ("make", "path"),
    [
        (lambda: _run(engine=variant("noise", (pipeline, "pack_noise", _other_noise))), "noise.audio"),
        (lambda: _run(engine=variant("text", (pipeline.Run, "text", _other_text))), "embeds.pos"),
        (lambda: _run(_sigmas()), "sigmas["),
        (lambda: _run(engine=no_frame_rate), "positions.video"),
        (lambda: _run(_of_picture()), "image"),
    ],
)
def test_an_input_that_differs_makes_samples_incomparable(make: Callable[[], Sample], path: str) -> None:
    reason = _said(make())
    assert reason.startswith(f"different inputs: {path}")
    assert " for the candidate and " in reason


def test_other_weights_make_samples_incomparable(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(cached(CASE.model), folder)
    file = next((folder / "vocoder").glob("*.safetensors"))
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert _said(_run(folder=folder)).startswith("different inputs: weights.vocoder")


def test_both_sides_hash_every_input() -> None:
    reference = factory("reference_impl.diffusers_ltx2:build")(cached(CASE.model), "cpu")
    theirs = reference.generate(CASE, Probe(depth="step", keep=False)).resolved
    mine = _plain().resolved
    assert handshake(mine, theirs) is None
    for resolved in (mine, theirs):
        assert resolved.keys() >= set(HANDSHAKE)
        hashes = [resolved["image"]]
        for name in ("noise", "positions", "embeds", "weights"):
            hashes += resolved[name].values()
        assert all(len(text) == 64 and not set(text) - set("0123456789abcdef") for text in hashes)
        assert resolved["noise"].keys() == resolved["positions"].keys() == {"video", "audio"}
