"""One stage of an LTX-2 pipeline: noisy states of video and audio to their final latents.

Legend: B prompts, T tokens of a stream, C latent channels, S text tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch

from conformance.case import Guidance
from conformance.errors import InputError, bad_field
from conformance.generator import Probe, step_tap
from engine.autocast import autocast
from engine.models.ltx2 import positions
from engine.models.ltx2.transformer import LTX2Transformer, ModelInputs
from engine.numerics import Numerics
from engine.pipelines.ltx2_inputs import STREAMS, Latents
from engine.sampling import branches as branching
from engine.sampling import euler, guidance, res2s
from engine.sampling.given import Given, restore
from engine.taps import block_taps

_TIMESTEP_SCALE = 1000
States = Mapping[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a stage is asked for.

    scales: guidance by stream. stg_blocks: blocks that STG perturbs. skip_v2a: no video-to-audio attention anywhere.
    frame_rate: frames a second. sampler: ``euler``, or ``res2s`` with its draws of injected noise after a step and
    after its half.
    """

    scales: Mapping[str, Guidance]
    stg_blocks: tuple[int, ...]
    skip_v2a: bool
    frame_rate: float
    sampler: Literal["euler", "res2s"]
    draw_step: res2s.Draw | None = None
    draw_substep: res2s.Draw | None = None


@dataclass(frozen=True, kw_only=True)
class _Denoiser:
    """What stays the same over the steps. bounds: token bounds by stream, batch B.

    given: tokens of a given frame. dtype: that of the model. spread: who runs the forwards of a step.
    """

    model: LTX2Transformer
    plan: Plan
    numerics: Numerics
    text: Mapping[str, States]
    bounds: States
    given: Given | None
    probe: Probe
    dtype: torch.dtype
    spread: branching.Spread

    @property
    def blended(self) -> Given | None:
        """The given tokens where they have a noise level of their own and are blended into every x0."""
        return self.given if self.numerics.given_tokens == "blended" else None

    def inputs(self, state: States, sigma: torch.Tensor, branches: tuple[str, ...]) -> ModelInputs:
        """The branches of one forward, one after the other along the batch."""
        count = len(branches)
        prompts = ["neg" if branch == "uncond" else "pos" for branch in branches]
        packed = {stream: _copies(state[stream].to(self.dtype), count) for stream in STREAMS}
        text = {stream: torch.cat([self.text[prompt][stream] for prompt in prompts]) for stream in STREAMS}
        bounds = {stream: self.bounds[stream].repeat(count, 1, 1, 1) for stream in STREAMS}
        rows = packed["video"].shape[0]
        # a level in float64, of a half step, reaches whole entries unrounded, tokens as the numerics say
        level = timestep(sigma, self.numerics).expand(rows)
        per_token = self.numerics.timestep_shape == "token"
        times = {
            stream: level[:, None].expand(-1, packed[stream].shape[1]) if per_token else level for stream in STREAMS
        }
        if self.given is not None:
            noisy_BT = self.given.mask_BT1[..., 0].repeat(count, 1)
            # the order of the two factors, where a mask is neither 0 nor 1
            blended = (noisy_BT * token_level(sigma, self.numerics)[:, None] * _TIMESTEP_SCALE).float()
            times["video"] = blended if self.blended is not None else level[:, None] * noisy_BT
        masked = self.numerics.text_mask == "zeros"
        ones = torch.ones(text["video"].shape[:2], dtype=torch.int64, device=level.device)
        return ModelInputs(
            video=packed["video"],
            audio=packed["audio"],
            video_text=text["video"],
            audio_text=text["audio"],
            text_mask=ones if masked else None,
            timestep=times["video"],
            audio_timestep=times["audio"],
            sigma=(sigma * _TIMESTEP_SCALE).float().expand(rows),
            video_bounds=bounds["video"],
            audio_bounds=bounds["audio"],
            stg_blocks=self.plan.stg_blocks if branches == ("stg",) else (),
            isolated=branches == ("modality",),
            skip_v2a=self.plan.skip_v2a,
        )

    def estimates(
        self, step: str, state: States, sigma: torch.Tensor, branches: branching.Forward
    ) -> branching.Estimates:
        """x0 of the branches of one forward. step: its tap."""
        out: branching.Estimates = {branch: {} for branch in branches}
        with self.probe.forward(step, branches):
            inputs = self.inputs(state, sigma, branches)
            with autocast(inputs.video, self.numerics):
                outputs = self.model(inputs, self.numerics)
            for stream, velocity in zip(STREAMS, outputs, strict=True):
                self.probe.model_tap(f"velocity/{stream}", velocity)
                for branch, part in zip(branches, velocity.chunk(len(branches)), strict=True):
                    out[branch][stream] = self.estimate(stream, state, sigma, part)
        return out

    def estimate(self, stream: str, state: States, sigma: torch.Tensor, velocity: torch.Tensor) -> torch.Tensor:
        """x0 of a stream from its velocity."""
        level = sigma.float()
        if stream == "video" and self.blended is not None:
            level = (self.blended.mask_BT1 * token_level(sigma, self.numerics)[:, None, None]).float()
        return euler.to_x0(state[stream], velocity, level, _dtype(self.numerics.x0_dtype, self.dtype))

    def x0(self, step: str, state: States, sigma: torch.Tensor) -> dict[str, torch.Tensor]:
        """Guided x0 [B,T,C] by stream, before given tokens are blended in. step: its tap."""
        for stream in STREAMS:
            self.probe.tap(f"{step}/latents/{stream}", state[stream])

        def blank(stream: str) -> torch.Tensor:
            still = torch.zeros(state[stream].shape, dtype=self.dtype, device=state[stream].device)
            return self.estimate(stream, state, sigma, still)

        forwards = guidance.forwards(tuple(self.plan.scales.values()), self.numerics)
        x0 = self.spread(forwards, partial(self.estimates, step, state, sigma), blank)
        out = {}
        for stream in STREAMS:
            each = {branch: estimates[stream] for branch, estimates in x0.items()}
            out[stream] = guidance.combine(each, self.plan.scales[stream], self.numerics, self.dtype)
            self.probe.tap(f"{step}/guided_x0/{stream}", out[stream])
        return out


def token_level(sigma: torch.Tensor, numerics: Numerics) -> torch.Tensor:
    """The noise level [1] that every token's own is a share of: not a scalar, so that its dtype counts."""
    return (sigma if numerics.midpoint_level == "float64" else sigma.float()).reshape(1)


def timestep(sigma: torch.Tensor, numerics: Numerics) -> torch.Tensor:
    """Timestep [1] of tokens that are noise alone, float32."""
    return (token_level(sigma, numerics) * _TIMESTEP_SCALE).float()


def _dtype(choice: str, model: torch.dtype) -> torch.dtype:
    return model if choice == "model" else torch.float32


def _copies(x: torch.Tensor, count: int) -> torch.Tensor:
    """``count`` copies along the batch; a single one keeps its strides."""
    return torch.cat([x] * count) if count > 1 else x


def sample(
    model: LTX2Transformer,
    plan: Plan,
    numerics: Numerics,
    *,
    text: Mapping[str, States],
    state: States,
    sigmas: torch.Tensor,
    latents: Latents,
    probe: Probe,
    given: Given | None = None,
    spread: branching.Spread = branching.run_all,
) -> dict[str, torch.Tensor]:
    """Denoise ``state`` (packed) along ``sigmas`` [N+1]; returns the final states as tokens.

    text: from ``contexts``; ``neg`` must be there when a cfg scale is above 1. state: at the first noise level, in the
    dtype of ``numerics.latent_dtype``, given tokens in place. given: those tokens of the video. spread: who runs the
    forwards of a step. InputError when the text is missing, or when the checkpoint cannot be perturbed as asked.
    """
    check_blocks(model, plan.stg_blocks)
    if guidance.uses_cfg(plan.scales.values()) and "neg" not in text:
        raise InputError("ltx2: text of prompt 'neg' is missing; expected it when a cfg scale is above 1")
    dtype, device = model.proj_in.weight.dtype, model.proj_in.weight.device
    batch = latents.video[0]
    video = positions.video_bounds(latents.video[2:], plan.frame_rate, batch, model.config, device)
    bounds = {
        "video": positions.rounded(video, dtype, numerics),
        "audio": positions.audio_bounds(latents.audio[2], batch, model.config, device),
    }
    probe.tap("sigmas", sigmas)
    for stream in STREAMS:
        probe.tap(f"positions/{stream}", bounds[stream].float())
    denoiser = _Denoiser(
        model=model,
        plan=plan,
        numerics=numerics,
        text=text,
        bounds=bounds,
        given=given,
        probe=probe,
        dtype=dtype,
        spread=spread,
    )
    with block_taps(model.transformer_blocks, probe):
        if plan.sampler == "res2s":
            final = _res2s(denoiser, state, sigmas.to(device))
        else:
            final = _euler(denoiser, state, sigmas.to(device), latents)
    for stream in STREAMS:
        probe.tap(f"latents/final/{stream}", final[stream])
    return final


def _euler(denoiser: _Denoiser, start: States, levels: torch.Tensor, latents: Latents) -> dict[str, torch.Tensor]:
    numerics, state = denoiser.numerics, dict(start)
    velocity_dtype = _dtype(numerics.velocity_dtype, denoiser.dtype)
    held = denoiser.given if denoiser.blended is None else None
    for index in range(len(levels) - 1):
        now, later = levels[index], levels[index + 1]
        guided = denoiser.x0(step_tap(index), state, now)
        for stream in STREAMS:
            x, given = state[stream], denoiser.blended if stream == "video" else None
            slope = euler.to_velocity(
                x, restore(guided[stream], given), now, velocity_dtype, divisor=numerics.velocity_divisor
            )
            state[stream] = euler.step(x, slope, now, later, x.dtype)
        if held is not None:
            state["video"] = with_first(start["video"], state["video"], latents, numerics)
    return state


def _res2s(denoiser: _Denoiser, start: States, levels: torch.Tensor) -> dict[str, torch.Tensor]:
    plan = denoiser.plan
    if plan.draw_step is None or plan.draw_substep is None:
        raise InputError("ltx2: res2s has no noise to inject; expected draws of a step and of its half")

    def evaluate(step: int, half: int, state: States, sigma: torch.Tensor) -> dict[str, torch.Tensor]:
        return denoiser.x0(step_tap(step, mid=half == 1), state, sigma)

    return res2s.sample(
        evaluate,
        start,
        levels,
        draw_step=plan.draw_step,
        draw_substep=plan.draw_substep,
        numerics=denoiser.numerics,
        given=None if denoiser.given is None else {"video": denoiser.given},
    )


def with_first(first_BTC: torch.Tensor, video_BTC: torch.Tensor, latents: Latents, numerics: Numerics) -> torch.Tensor:
    """The packed video state ``video_BTC`` with its first latent frame replaced by that of ``first_BTC``."""
    first, rest = (positions.unpack_video(x, latents.video[2:]) for x in (first_BTC, video_BTC))
    return positions.pack_video(torch.cat((first[:, :, :1], rest[:, :, 1:]), dim=2), numerics)


def check_blocks(model: LTX2Transformer, stg_blocks: tuple[int, ...]) -> None:
    """InputError when blocks are to be perturbed that the checkpoint does not have or lets nobody perturb."""
    layers = model.config.num_layers
    if any(block >= layers for block in stg_blocks):
        raise bad_field("request", "stg_blocks", stg_blocks, f"block indices below {layers}")
    if stg_blocks and not model.config.perturbed_attn:
        raise bad_field("request", "stg_blocks", stg_blocks, "none: the checkpoint has perturbed_attn false")
