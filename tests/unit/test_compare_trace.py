"""Steps, first divergence and the handshake."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from samples import changed, sample

from conformance.compare import compare, handshake
from conformance.generator import HANDSHAKE, Sample, Tap

DIGEST, OTHER = "a" * 64, "b" * 64


def retapped(base: Sample, name: str, tensor: torch.Tensor) -> Sample:
    other = changed(base)
    other.trace[name], other.tensors[name] = Tap.of(tensor), tensor
    return other


def test_first_divergence_is_in_the_candidates_order() -> None:
    base = sample()
    candidate = retapped(base, "step.001/latents/audio", base.tensors["step.001/latents/audio"] * 1.5)
    candidate = retapped(candidate, "latents/final/video", base.tensors["latents/final/video"] + 1)
    found = compare(candidate, base, limits=None).divergence
    assert found is not None
    assert (found.tap, found.compared, found.differing, found.missing) == ("step.001/latents/audio", 8, 2, ())
    assert found.rel_l2 == pytest.approx(0.5, rel=1e-6)
    assert found.max_abs == pytest.approx(0.5 * float(base.tensors["step.001/latents/audio"].abs().max()), rel=1e-6)
    assert found.candidate["sha256"] == candidate.trace[found.tap].sha256
    assert found.reference["shape"] == [2, 6, 8]
    backwards = changed(candidate, trace=dict(reversed(candidate.trace.items())))
    found = compare(backwards, base, limits=None).divergence
    assert found is not None
    assert found.tap == "latents/final/video"


def test_divergence_without_tensors_or_with_other_shapes() -> None:
    base = sample()
    name = "step.000/latents/video"
    candidate = retapped(base, name, base.tensors[name] + 1)
    for side in (changed(candidate, tensors={}), retapped(base, name, base.tensors[name][:1])):
        found = compare(side, base, limits=None).divergence
        assert found is not None
        assert (found.tap, found.rel_l2, found.max_abs) == (name, None, None)


def test_missing_taps_are_listed_from_both_sides() -> None:
    base = sample()
    candidate, reference = changed(base), changed(base)
    del candidate.trace["step.000/latents/audio"]
    del reference.trace["latents/final/audio"]
    assert compare(candidate, reference, limits=None).divergence is None
    candidate = retapped(candidate, "step.000/latents/video", torch.ones(2, 6, 8))
    found = compare(candidate, reference, limits=None).divergence
    assert found is not None
    assert found.missing == ("latents/final/audio", "step.000/latents/audio")
    assert found.compared == 6


def test_steps_follow_the_latents() -> None:
    base = sample()
    candidate = changed(base)
    for step, factor in ((0, 1.0), (1, 1.25)):
        candidate.tensors[f"step.{step:03d}/latents/video"] *= factor
    candidate.tensors["latents/final/video"] *= 1.5
    del candidate.tensors["step.001/latents/audio"]
    steps = compare(candidate, base, limits=None).steps
    assert [dataclasses.astuple(step) for step in steps] == [
        (0, 0.0, 0.0),
        (1, pytest.approx(0.25, rel=1e-6), None),
        (2, pytest.approx(0.5, rel=1e-6), 0.0),
    ]
    assert compare(changed(base, tensors={}), base, limits=None).steps == ()


def resolved() -> dict[str, object]:
    plain: dict[str, object] = dict.fromkeys(HANDSHAKE, 1)
    return plain | {
        "noise": {"video": DIGEST, "audio": DIGEST},
        "sigmas": [1.0, 0.5, 0.0],
        "guidance": {"video": {"cfg": 3.0, "stg": 1.0}},
        "dtype": "fp32",
    }


def test_equal_inputs_shake_hands() -> None:
    assert handshake(resolved(), resolved()) is None
    assert handshake(resolved() | {"sigmas": (1.0, 0.5, 0.0), "frame_rate": 1.0, "extra": 5}, resolved()) is None


@pytest.mark.parametrize("key", HANDSHAKE)
def test_every_key_is_asked_for(key: str) -> None:
    lacking = resolved()
    del lacking[key]
    assert handshake(lacking, resolved()) == f"different inputs: {key} is missing from the candidate"
    assert handshake(resolved(), lacking) == f"different inputs: {key} is missing from the reference"
    assert handshake(lacking, lacking) == f"different inputs: {key} is missing from the candidate and the reference"
    said = handshake(resolved() | {key: "x"}, resolved())
    assert said is not None
    assert f" {key} is x for the candidate and " in said


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        (
            "noise",
            {"video": OTHER, "audio": DIGEST},
            "noise.video is bbbbbbbbbbbb... for the candidate and aaaaaaaaaaaa...",
        ),
        ("noise", {"video": DIGEST}, "noise.audio is absent for the candidate and aaaaaaaaaaaa... for the reference"),
        (
            "noise",
            {"video": DIGEST, "audio": DIGEST, "x": 1},
            "noise.x is 1 for the candidate and absent for the reference",
        ),
        ("sigmas", [1.0, 0.25, 0.0], "sigmas[1] is 0.25 for the candidate and 0.5 for the reference"),
        ("sigmas", [1.0, 0.0], "sigmas is [1.0, 0.0] for the candidate and [1.0, 0.5, 0.0] for the reference"),
        ("guidance", {"video": {"cfg": 3.0, "stg": 0.0}}, "guidance.video.stg is 0.0 for the candidate and 1.0"),
        ("steps", True, "steps is True for the candidate and 1 for the reference"),
        ("dtype", "bf16", "dtype is bf16 for the candidate and fp32 for the reference"),
    ],
)
def test_differences_are_named(key: str, value: object, said: str) -> None:
    sentence = handshake(resolved() | {key: value}, resolved())
    assert sentence is not None
    assert said in sentence


def test_the_first_key_is_named() -> None:
    different = resolved() | {"weights": 2, "width": 2}
    assert handshake(different, resolved()) == "different inputs: width is 2 for the candidate and 1 for the reference"
