"""Operations of the sampling loop that read one field of ``Numerics``; see ``model_operations``."""

from __future__ import annotations

import torch

from conformance.case import Guidance
from conformance.defects.fields.model_operations import CPU, SIZES, dit, draw
from conformance.generator import Probe
from engine import lora
from engine.models.ltx2 import positions, upsampler
from engine.models.ltx2.audio_vae import model as audio_vae
from engine.models.ltx2.video_vae import model as video_vae
from engine.numerics import Numerics
from engine.pipelines import ltx2_stage, ltx2_starts
from engine.sampling import guidance, noiser, res2s
from engine.sampling.given import Given
from engine.sampling.schedule import ScheduleConfig, schedule
from reference_impl.tiny.build import cached

_OFF = Guidance(cfg=1.0, stg=0.0, modality=1.0, rescale=0.0)
_CFG = Guidance(cfg=3.0, stg=0.0, modality=1.0, rescale=0.0)


def guided_batch(numerics: Numerics, dtype: torch.dtype) -> torch.Tensor:
    """First layers of the DiT for the cond and uncond branches: timesteps of one or two rows, states copied or not."""
    model = dit(dtype)
    out: dict[str, torch.Tensor] = {}
    state = positions.pack_video(draw(torch.float32, *SIZES.video), numerics).to(dtype)
    for branches in guidance.forwards((_CFG, _CFG), numerics):
        tokens = model.proj_in(ltx2_stage._copies(state, len(branches)))
        rows = model.time_embed(torch.tensor([731.7]).expand(len(branches)), dtype)[0]
        parts = torch.cat((tokens.flatten(1), rows.flatten(1)), dim=1).chunk(len(branches))
        out.update(zip(branches, parts, strict=True))
    return torch.cat([out["cond"], out["uncond"]])


def _one_step(numerics: Numerics, dtype: torch.dtype, *, held: bool = False) -> dict[str, torch.Tensor]:
    """Taps of one unguided Euler step of the tiny DiT. held: with a given first frame."""
    model, probe = dit(dtype), Probe(depth="step")
    state_dtype = dtype if numerics.latent_dtype == "model" else torch.float32
    widths = {"video": model.config.width, "audio": model.config.audio_width}
    text = {"pos": {stream: draw(dtype, 1, 16, width, seed=2) for stream, width in widths.items()}}
    noise = {"video": draw(torch.float32, 1, 12, 128), "audio": draw(torch.float32, 1, 7, 128, seed=1)}
    frame = draw(torch.float32, 1, 128, 1, *SIZES.video[3:], seed=3)
    given = ltx2_starts.given_frame(frame, 1.0, SIZES, numerics) if held else None
    plan = ltx2_stage.Plan(
        scales={"video": _OFF, "audio": _OFF}, stg_blocks=(), skip_v2a=False, frame_rate=24.0, sampler="euler"
    )
    ltx2_stage.sample(
        model,
        plan,
        numerics,
        text=text,
        state=ltx2_starts.from_noise(noise, given, SIZES, numerics, state_dtype),
        sigmas=torch.tensor([0.9, 0.4]),
        latents=SIZES,
        probe=probe,
        given=given,
    )
    return probe.tensors


def held_frame_velocity(numerics: Numerics, dtype: torch.dtype) -> torch.Tensor:
    """Both streams of a forward whose video has tokens of another noise level."""
    taps = _one_step(numerics, dtype, held=True)
    return torch.cat([taps[f"step.000/cond/velocity/{stream}"].flatten() for stream in ("video", "audio")])


def held_frame_x0(numerics: Numerics, dtype: torch.dtype) -> torch.Tensor:
    return _one_step(numerics, dtype, held=True)["step.000/guided_x0/video"]


def first_state(numerics: Numerics, dtype: torch.dtype) -> torch.Tensor:
    return _one_step(numerics, dtype)["step.000/latents/video"]


def first_x0(numerics: Numerics, dtype: torch.dtype) -> torch.Tensor:
    return _one_step(numerics, dtype)["step.000/guided_x0/video"]


def last_state(numerics: Numerics, dtype: torch.dtype) -> torch.Tensor:
    return _one_step(numerics, dtype)["latents/final/video"]


def guided(numerics: Numerics, dtype: torch.dtype) -> torch.Tensor:
    """Two samples of unequal deviation."""
    x0 = {name: draw(torch.float32, 2, 9, 16, seed=seed) for seed, name in enumerate(("cond", "uncond", "stg"))}
    x0["cond"][1] *= 5
    scales = Guidance(cfg=3.0, stg=1.3, modality=1.0, rescale=0.7)
    return guidance.combine(x0, scales, numerics, dtype)


def levels(numerics: Numerics, dtype: torch.dtype) -> torch.Tensor:
    return schedule(7, 24, ScheduleConfig.load(cached("ltx-2") / "scheduler"), numerics)


def long_levels(numerics: Numerics, dtype: torch.dtype) -> torch.Tensor:
    return schedule(7, 4096, ScheduleConfig.load(cached("ltx-2") / "scheduler"), numerics)


def noised(numerics: Numerics, dtype: torch.dtype) -> torch.Tensor:
    """A latent of the state's dtype with some tokens given."""
    mask = torch.rand(1, 45, 1, generator=torch.Generator().manual_seed(5))
    mask[:, :9] = 0.0
    clean = draw(dtype, 1, 45, 16, seed=3)
    latent = torch.where(mask < 1, clean, draw(dtype, 1, 45, 16))
    given = Given(mask_BT1=mask, clean_BTC=clean)
    return noiser.noised(latent, draw(torch.float32, 1, 45, 16, seed=1), 0.909375, numerics, given)


def second_order_weights(numerics: Numerics, dtype: torch.dtype) -> torch.Tensor:
    steps = res2s.coefficients(torch.tensor([1.0, 0.909375, 0.725, 0.421875, 0.0011]), numerics)
    return torch.tensor([[c.a21, c.b1, c.b2] for c in steps], dtype=torch.float64)


def injected(numerics: Numerics, dtype: torch.dtype) -> torch.Tensor:
    return res2s.standardised(draw(torch.float64, 1, 45, 16), dtype, numerics)


def res2s_states(numerics: Numerics, dtype: torch.dtype) -> torch.Tensor:
    """Everything that a model is asked, and the end, of two steps over a stub."""
    asked: list[torch.Tensor] = []

    def evaluate(step: int, half: int, states: res2s.States, level: torch.Tensor) -> res2s.States:
        asked.extend(state.double().flatten() for state in states.values())
        return {
            stream: torch.sin(state.to(dtype).float() * (1 + level.float())).to(dtype)
            for stream, state in states.items()
        }

    state = {"video": draw(dtype, 1, 45, 16), "audio": draw(dtype, 1, 7, 16, seed=1)}
    step, substep = (torch.Generator().manual_seed(seed) for seed in (3, 4))
    end = res2s.sample(
        evaluate,
        state,
        torch.tensor([0.9, 0.6, 0.0]),
        draw_step=lambda shape: torch.randn(shape, generator=step, dtype=torch.float64),
        draw_substep=lambda shape: torch.randn(shape, generator=substep, dtype=torch.float64),
        numerics=numerics,
    )
    return torch.cat((*asked, *(x.double().flatten() for x in end.values())))


def merged_weight(numerics: Numerics, dtype: torch.dtype) -> torch.Tensor:
    """With factors stored in bf16."""
    factors = lora.Factors(a_RI=draw(torch.bfloat16, 8, 64), b_OR=draw(torch.bfloat16, 96, 8, seed=1))
    return lora.added(factors, 0.8, draw(dtype, 96, 64, seed=2), numerics)


def second_start(numerics: Numerics, dtype: torch.dtype) -> torch.Tensor:
    """First layer of the DiT on what a second stage starts from."""
    tokens = {"video": positions.pack_video(draw(dtype, *SIZES.video), numerics), "audio": draw(dtype, 1, 7, 128)}
    noise = {"video": draw(dtype, 1, 12, 128, seed=1), "audio": draw(dtype, 1, 7, 128, seed=2)}
    state = ltx2_starts.from_latents(tokens, noise, 0.9, None, SIZES, numerics, dtype, Probe(depth="step"))
    return dit(dtype).proj_in(state["video"])


def half_step_timesteps(numerics: Numerics, dtype: torch.dtype) -> torch.Tensor:
    """Of levels that are a root of two others, as of half a res2s step."""
    levels = torch.sqrt(torch.linspace(0.2, 1.0, 50, dtype=torch.float64) * 0.9)
    return torch.cat([ltx2_stage.timestep(level, numerics) for level in levels])


def upsampler_input(numerics: Numerics, dtype: torch.dtype) -> torch.Tensor:
    folder, probe = cached("ltx-2.3"), Probe(depth="step")
    model = upsampler.load(folder / "latent_upsampler", dtype, CPU)
    vae = video_vae.load(folder / "vae", dtype, CPU)
    upsampler.upsample(model, vae, draw(torch.float32, *SIZES.video), numerics, probe)
    return probe.tensors["upsample/input"]


def handed_over(numerics: Numerics, dtype: torch.dtype) -> torch.Tensor:
    vae = audio_vae.load(cached("ltx-2.3") / "audio_vae", dtype, CPU)
    return ltx2_starts.handed_over(vae, draw(torch.float32, 1, 7, 128), numerics)
