"""The res_2s sampler: bit for bit the loop of ltx-pipelines 1.0.0, and a second-order method by its own measure."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from official_packages import require

from conformance.errors import InputError
from engine.numerics import Numerics
from engine.sampling import res2s
from engine.sampling.given import Given
from engine.sampling.schedule import ScheduleConfig, given, schedule
from reference_impl.tiny.build import cached

OFFICIAL = Numerics.official_1_0_0()
SHAPES = {"video": (1, 45, 128), "audio": (1, 9, 128)}
DTYPES = (torch.float32, torch.bfloat16)
CURVE = ScheduleConfig.load(cached("ltx-2") / "scheduler")
DISTILLED = given((0.909375, 0.725, 0.421875))
States = dict[str, torch.Tensor]


def own_levels(steps: int) -> torch.Tensor:
    return schedule(steps, 24, CURVE, OFFICIAL)


# steps on both sides of the largest that is refined, and levels on both sides of the lowest
STEEP, LOW = given((0.95, 0.605, 0.3, 0.1)), given((0.05, 0.035, 0.029, 0.02))
LEVELS = {"distilled": DISTILLED, "steep": STEEP, "low": LOW} | {
    str(steps): own_levels(steps) for steps in (4, 5, 8, 15)
}


def drawing(seed: int) -> Callable[[tuple[int, ...]], torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return lambda shape: torch.randn(shape, generator=generator, dtype=torch.float64)


def start(dtype: torch.dtype, seed: int = 1, batch: int = 1) -> States:
    draw = drawing(seed)
    return {stream: draw((batch, *shape[1:])).to(dtype) for stream, shape in SHAPES.items()}


def tokens(dtype: torch.dtype) -> dict[str, Given]:
    """The first frame of the video stays, and other tokens are half given; the audio is free."""
    mask_BT1 = torch.ones(1, SHAPES["video"][1], 1)
    mask_BT1[:, :15], mask_BT1[:, 20:25] = 0.0, 0.3
    return {"video": Given(mask_BT1=mask_BT1, clean_BTC=start(dtype, seed=7)["video"])}


def denoise(state: Any, sigma: torch.Tensor) -> States:
    """A model stand-in: x0 of each stream from both streams and the level, in float32, rounded to the state's dtype."""
    mean = {stream: x.float().mean(dim=1, keepdim=True) for stream, x in state.items()}
    video, audio = state["video"].float(), state["audio"].float()
    level = sigma.float()
    return {
        "video": (torch.tanh(1.3 * video + mean["audio"]) * (1 - 0.4 * level)).to(state["video"].dtype),
        "audio": (torch.sin(0.9 * audio - mean["video"]) * torch.cos(level)).to(state["audio"].dtype),
    }


def ours(
    state: States, levels: torch.Tensor, numerics: Numerics = OFFICIAL, held: dict[str, Given] | None = None
) -> tuple[States, list[tuple[Any, ...]]]:
    """Final states and, of every evaluation, step, half, level and the dtypes of state and level."""
    calls: list[tuple[Any, ...]] = []

    def evaluate(step: int, half: int, now: res2s.States, sigma: torch.Tensor) -> States:
        calls.append((step, half, sigma.item(), now["video"].dtype, sigma.dtype))
        return denoise(now, sigma)

    final = res2s.sample(
        evaluate,
        state,
        levels,
        draw_step=drawing(-1),
        draw_substep=drawing(9999),
        numerics=numerics,
        given=held,
    )
    return final, calls


def theirs(state: States, levels: torch.Tensor, held: dict[str, Given]) -> States:
    """The official loop around the same stand-in."""
    require("1.0.0")
    from ltx_core.components.diffusion_steps import Res2sDiffusionStep
    from ltx_core.types import LatentState
    from ltx_pipelines.utils.samplers import res2s_audio_video_denoising_loop

    def latent_state(stream: str) -> LatentState:
        x = state[stream]
        free = Given(mask_BT1=torch.ones(1, x.shape[1], 1), clean_BTC=torch.zeros_like(x))
        part = held.get(stream, free)
        return LatentState(latent=x, denoise_mask=part.mask_BT1, clean_latent=part.clean_BTC, positions=torch.zeros(1))

    def step(video_state: Any, audio_state: Any, sigmas: torch.Tensor, step_index: int) -> tuple[torch.Tensor, ...]:
        x0 = denoise({"video": video_state.latent, "audio": audio_state.latent}, sigmas[step_index])
        return x0["video"], x0["audio"]

    video, audio = res2s_audio_video_denoising_loop(
        sigmas=levels,
        video_state=latent_state("video"),
        audio_state=latent_state("audio"),
        stepper=Res2sDiffusionStep(),
        denoise_fn=step,
        model_dtype=state["video"].dtype,
    )
    return {"video": video.latent, "audio": audio.latent}


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64])
def test_is_bitwise_the_official_loop(dtype: torch.dtype, masked: bool, levels: str) -> None:
    held = tokens(dtype) if masked else {}
    expected = theirs(start(dtype), LEVELS[levels], held)
    final, _ = ours(start(dtype), LEVELS[levels], held=held)
    for stream in SHAPES:
        assert final[stream].dtype == dtype
        assert torch.equal(final[stream], expected[stream]), stream


def test_a_batch_is_bitwise_the_official_loop() -> None:
    state = start(torch.float32, batch=2)
    expected = theirs(state, DISTILLED, {})
    final, _ = ours(state, DISTILLED)
    for stream in SHAPES:
        assert torch.equal(final[stream], expected[stream])


@pytest.mark.parametrize("steps", [4, 15])
def test_evaluations(steps: int) -> None:
    levels = own_levels(steps)
    final, calls = ours(start(torch.bfloat16), levels)
    assert [call[:2] for call in calls] == [(step, half) for step in range(steps) for half in (0, 1)] + [(steps, 0)]
    values = [*levels.tolist()[:-1], 0.0011]
    assert [call[2] for call in calls[::2]] == pytest.approx(values, rel=1e-7)
    middles = [math.sqrt(now * later) for now, later in pairwise(values)]
    assert [call[2] for call in calls[1::2]] == pytest.approx(middles, rel=1e-7)
    assert {call[3] for call in calls} == {torch.bfloat16}
    assert [call[4] for call in calls] == [torch.float32, torch.float64] * steps + [torch.float32]
    assert final["audio"].shape == SHAPES["audio"]


@pytest.mark.parametrize("levels", LEVELS)
def test_coefficients_are_bitwise_the_official_ones(levels: str) -> None:
    require("1.0.0")
    from ltx_pipelines.utils.res2s import get_res2s_coefficients

    falling = LEVELS[levels][:-1]
    for now, later, c in zip(falling, falling[1:], res2s.coefficients(falling, OFFICIAL), strict=False):
        assert math.exp(-c.h) == pytest.approx(float(later.double() / now.double()), rel=1e-15)
        assert (c.a21, c.b1, c.b2) == get_res2s_coefficients(c.h, {})


@pytest.mark.parametrize("batch", [1, 2])
def test_noise_is_bitwise_the_official(batch: int) -> None:
    require("1.0.0")
    from ltx_pipelines.utils.samplers import _get_new_noise

    shape = (batch, *SHAPES["video"][1:])
    expected = _get_new_noise(torch.zeros(shape), torch.Generator().manual_seed(9999))
    assert torch.equal(res2s.standardised(drawing(9999)(shape), torch.bfloat16, OFFICIAL), expected)


def test_coefficients_integrate_what_they_should() -> None:
    """x' = x0 - x with x0 constant, then linear in time, has a closed solution."""
    for c in res2s.coefficients(torch.cat((own_levels(8)[:-1], torch.tensor([0.0011]))), OFFICIAL):
        assert c.h * (c.b1 + c.b2) == pytest.approx(1 - math.exp(-c.h), rel=1e-12)
        assert c.h * c.a21 == pytest.approx(1 - math.exp(-c.h / 2), rel=1e-12)
        assert c.h * c.b2 * c.h / 2 == pytest.approx(c.h - 1 + math.exp(-c.h), rel=1e-9)
    tiny = res2s.coefficients(torch.tensor([1.0, 1.0 - 2.0**-24]), OFFICIAL)[0]
    assert (tiny.a21, tiny.b2) == pytest.approx((0.5, 1.0), rel=1e-1)


def test_coefficients_in_float32_are_near_and_not_equal() -> None:
    levels = torch.tensor([1.0, 0.99375, 0.9, 0.5, 0.0011])
    single = res2s.coefficients(levels, replace(OFFICIAL, res2s_coefficients="float32"))
    for one, other in zip(single, res2s.coefficients(levels, OFFICIAL), strict=True):
        for name in ("h", "a21", "b1", "b2"):
            # the closest levels are 0.006 apart: e^z - 1 - z has three digits fewer than z there
            assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-3, abs=1e-4), name
            assert getattr(one, name) != getattr(other, name), name


def test_noise_free_steps_are_of_second_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without renewed noise, half the step has a quarter of the error."""
    monkeypatch.setattr(res2s, "renew", lambda start, end, now, later, noise: end)
    monkeypatch.setattr(res2s, "LAST_LEVEL", 0.2)
    state = {stream: x.double() for stream, x in start(torch.float64).items()}

    def last(steps: int) -> torch.Tensor:
        levels = torch.logspace(math.log10(0.9), math.log10(0.2), steps + 1, dtype=torch.float64)
        levels[-1] = 0.0
        seen: list[torch.Tensor] = []

        def evaluate(step: int, half: int, now: res2s.States, sigma: torch.Tensor) -> States:
            seen.append(now["video"])
            return {name: torch.tanh(2 * x) * (1 - sigma) for name, x in now.items()}

        res2s.sample(evaluate, state, levels, draw_step=drawing(1), draw_substep=drawing(2), numerics=OFFICIAL)
        return seen[-1]

    exact = last(256)
    errors = [float((last(steps) - exact).norm()) for steps in (8, 16, 32)]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.25)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.25)


def test_renewed_noise_keeps_the_level() -> None:
    """Of a clean 0, a state of level s is s*noise; it must stay so, and a half of the noise be new."""
    old, new = (drawing(seed)((1, 4000, 128)) for seed in (1, 2))
    now, later = torch.tensor(0.8), torch.tensor(0.5)
    out = res2s.renew(0.8 * old, 0.5 * old, now, later, new)
    signal = 0.5 + math.sqrt(0.5**2 - 0.25**2)
    assert float((out * new).mean()) == pytest.approx(0.25, abs=5e-3)
    assert float((out * old).mean()) == pytest.approx(math.sqrt(0.5**2 - 0.25**2), abs=5e-3)
    clean = res2s.renew(torch.ones(1, 2, 3), torch.ones(1, 2, 3), now, later, torch.zeros(1, 2, 3))
    assert clean.unique().tolist() == pytest.approx([signal])


def test_the_refined_start_leads_to_the_noised_midpoint() -> None:
    middle, x0, begin = (drawing(seed)((1, 5, 8)) for seed in (1, 2, 3))
    anchor = res2s.refined(middle, x0, begin, 0.2)
    assert torch.allclose(anchor + 0.2 * (x0 - anchor), middle, rtol=0, atol=1e-12)


def test_noise_is_standardised_over_all_and_within_samples() -> None:
    raw = drawing(3)((2, 9, 16)) * torch.tensor([1.0, 3.0])[:, None, None] + 0.5
    noise = res2s.standardised(raw, torch.bfloat16, OFFICIAL)
    assert noise.dtype == torch.float64
    for sample in noise:
        assert float(sample.mean()) == pytest.approx(0, abs=1e-12)
        assert float(sample.std()) == pytest.approx(1, rel=1e-12)
    rounded = res2s.standardised(raw, torch.bfloat16, replace(OFFICIAL, sde_noise_dtype="model"))
    assert rounded.dtype == torch.float64
    assert torch.equal(rounded, noise.bfloat16().double())


def test_given_tokens_stay() -> None:
    held = tokens(torch.bfloat16)
    kept = slice(0, 15)
    state = start(torch.bfloat16)
    state["video"][:, kept] = held["video"].clean_BTC[:, kept]
    final, _ = ours(state, own_levels(5), held=held)
    assert torch.equal(final["video"][:, kept], held["video"].clean_BTC[:, kept])
    free, _ = ours(state, own_levels(5))
    assert not torch.equal(final["video"][:, 20:25], free["video"][:, 20:25])


def test_draws_and_given_tokens_of_every_evaluation() -> None:
    held, drawn = tokens(torch.float32), []
    states: list[torch.Tensor] = []

    def recording(name: str, seed: int) -> Callable[[tuple[int, ...]], torch.Tensor]:
        draw = drawing(seed)

        def call(shape: tuple[int, ...]) -> torch.Tensor:
            drawn.append((name, shape))
            return draw(shape)

        return call

    def evaluate(step: int, half: int, now: res2s.States, sigma: torch.Tensor) -> States:
        states.append(now["video"])
        return denoise(now, sigma)

    res2s.sample(
        evaluate,
        start(torch.float32),
        DISTILLED,
        draw_step=recording("step", 1),
        draw_substep=recording("substep", 2),
        numerics=OFFICIAL,
        given=held,
    )
    one_step = [(name, SHAPES[stream]) for name in ("substep", "step") for stream in ("video", "audio")]
    assert drawn == one_step * 3
    assert len(states) == 7
    for state in states[1:]:
        assert torch.equal(state[:, :15], held["video"].clean_BTC[:, :15])


@pytest.mark.parametrize(
    ("field", "value", "visible"),
    [
        ("sde_noise_dtype", "model", {torch.float32, torch.bfloat16}),
        ("sde_levels_dtype", "float64", {torch.float32}),
        ("res2s_coefficients", "float32", {torch.float32}),
    ],
)
def test_each_choice_changes_the_result(field: str, value: str, visible: set[torch.dtype]) -> None:
    for dtype in DTYPES:
        one, _ = ours(start(dtype), own_levels(8))
        other, _ = ours(start(dtype), own_levels(8), replace(OFFICIAL, **{field: value}))
        if dtype in visible:
            assert not torch.equal(one["video"], other["video"])
        distance = float((one["video"].double() - other["video"].double()).norm() / one["video"].double().norm())
        assert distance < (1e-4 if dtype == torch.float32 else 5e-2)


def test_an_unrounded_midpoint_reaches_the_evaluation() -> None:
    _, calls = ours(start(torch.bfloat16), own_levels(4), replace(OFFICIAL, midpoint_dtype="float64"))
    assert [call[3] for call in calls] == [torch.bfloat16, torch.float64] * 4 + [torch.bfloat16]


@pytest.mark.parametrize("levels", [(1.0, 0.5), (0.5, 0.5, 0.0), (0.9, 0.0011, 0.0), (0.5, 0.9, 0.0), (0.0,)])
def test_levels_that_do_not_fall_to_zero_are_refused(levels: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match=r"res2s: 'sigmas' is .*; expected falling levels above 0\.0011, then 0"):
        ours(start(torch.float32), torch.tensor(levels))
