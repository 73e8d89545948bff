"""What the second stage and the half step of official 1.2.0 read otherwise than 1.0.0."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from conformance.generator import Probe
from engine.models.ltx2 import positions
from engine.numerics import Numerics
from engine.pipelines import ltx2_starts
from engine.pipelines.ltx2_inputs import Latents
from engine.pipelines.ltx2_stage import _Denoiser

OFFICIAL = Numerics.official_1_0_0()
SIZES = Latents(video=(1, 128, 2, 2, 3), audio=(1, 8, 5, 16))


def _draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("picture", [False, True])
@pytest.mark.parametrize(("value", "contiguous"), [("noise", True), ("latents", False)])
def test_the_second_stage_starts_in_the_memory_of_its_noise_or_of_its_latents(
    value: Any, contiguous: bool, picture: bool
) -> None:
    states = {}
    for second_memory in (value, "noise"):
        numerics = replace(OFFICIAL, second_memory=second_memory, noiser="lerp")
        start = {"video": positions.pack_video(_draw(*SIZES.video), numerics), "audio": _draw(1, 5, 128)}
        noise = {"video": positions.pack_video(_draw(*SIZES.video, seed=1), numerics), "audio": _draw(1, 5, 128)}
        given = ltx2_starts.given_frame(_draw(1, 128, 1, 2, 3, seed=2), 0.7, SIZES, numerics) if picture else None
        states[second_memory] = ltx2_starts.from_latents(
            start, noise, 0.9, given, SIZES, numerics, torch.float32, Probe()
        )["video"]
    assert states[value].is_contiguous() == contiguous
    assert torch.equal(states[value], states["noise"])


def test_lerp_starts_from_the_upsampled_frame_and_not_from_the_given_one() -> None:
    probes = {}
    for noiser in ("masked", "lerp"):
        numerics, probes[noiser] = replace(OFFICIAL, noiser=noiser), Probe()
        start = {"video": _draw(1, 12, 128), "audio": _draw(1, 5, 128)}
        given = ltx2_starts.given_frame(_draw(1, 128, 1, 2, 3, seed=2), 0.7, SIZES, numerics)
        ltx2_starts.from_latents(start, start, 0.9, given, SIZES, numerics, torch.float32, probes[noiser])
    started = {name: probe.tensors["start/video"] for name, probe in probes.items()}
    assert torch.equal(started["lerp"], _draw(1, 12, 128))
    assert torch.equal(started["masked"][:, :6], given.clean_BTC[:, :6])
    assert torch.equal(started["masked"][:, 6:], started["lerp"][:, 6:])


@pytest.mark.parametrize("value", ["float32", "float64"])
def test_the_level_of_a_half_step_reaches_tokens_rounded_or_not(value: Any) -> None:
    levels = torch.sqrt(torch.linspace(0.2, 1, 50, dtype=torch.float64) * 0.9)
    given = ltx2_starts.given_frame(_draw(1, 128, 1, 2, 3), 0.7, SIZES, OFFICIAL)
    unused: Any = None
    denoiser = _Denoiser(
        model=unused,
        plan=type("Plan", (), {"stg_blocks": (), "skip_v2a": False})(),  # type: ignore[arg-type]
        numerics=replace(OFFICIAL, midpoint_level=value),
        text={"pos": {"video": _draw(1, 4, 8), "audio": _draw(1, 4, 8)}},
        bounds={"video": _draw(1, 3, 12, 2), "audio": _draw(1, 1, 5, 2)},
        given=given,
        spread=unused,
        probe=Probe(),
        dtype=torch.float32,
    )
    state = {"video": _draw(1, 12, 128), "audio": _draw(1, 5, 128)}
    wide = value == "float64"
    rounded = 0
    for level in levels:
        inputs = denoiser.inputs(state, level, ("cond",))
        read = level if wide else level.float()
        assert inputs.timestep.dtype == inputs.audio_timestep.dtype == torch.float32
        assert float(inputs.audio_timestep[0, 0]) == float((read * 1000).float())
        share = given.mask_BT1[0, 0, 0].to(read.dtype)
        assert float(inputs.timestep[0, 0]) == float((share * read * 1000).float())
        assert float(inputs.sigma) == float((level * 1000).float())
        rounded += float(inputs.audio_timestep[0, 0]) != float(inputs.sigma)
    assert bool(rounded) != wide
