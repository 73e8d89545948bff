"""LTX-2 and LTX-2.3 one-stage video with audio, from text or text and a first frame: states and noise to latents.

Legend: B prompts, T tokens of a stream, C latent channels, E packed text width, S text tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from conformance.case import Request
from conformance.errors import InputError, bad_field
from conformance.generator import Probe, step_tap
from engine.models.ltx2 import positions
from engine.models.ltx2.connectors import LTX2Connectors
from engine.models.ltx2.transformer import LTX2Transformer, ModelInputs
from engine.numerics import Numerics
from engine.sampling import euler, guidance
from engine.taps import block_taps

_TIMESTEP_SCALE = 1000
STREAMS = ("video", "audio")


@dataclass(frozen=True, kw_only=True)
class TextStates:
    """Packed states of every text encoder layer [B,S,E] in the model dtype and token mask [B,S]."""

    embeds: torch.Tensor | None
    mask: torch.Tensor | None


@dataclass(frozen=True, kw_only=True)
class Latents:
    """Sizes of the unpacked latents: video [B,C,F,H,W] and audio [B,C,L,M]."""

    video: tuple[int, int, int, int, int]
    audio: tuple[int, int, int, int]


def contexts(
    connectors: LTX2Connectors, text: Mapping[str, TextStates], numerics: Numerics, probe: Probe
) -> dict[str, dict[str, torch.Tensor]]:
    """Text context [B,S,·] by prompt (``pos``, ``neg``) and stream; one connector call per prompt.

    InputError when a prompt's embeddings or mask are missing.
    """
    out: dict[str, dict[str, torch.Tensor]] = {}
    for prompt, states in text.items():
        embeds, mask = states.embeds, states.mask
        if embeds is None or mask is None:
            name = "embeds" if embeds is None else "mask"
            raise InputError(f"ltx2 one-stage: {name!r} of prompt {prompt!r} is missing; expected a tensor")
        probe.tap(f"text/{prompt}/embeds", embeds)
        probe.tap(f"text/{prompt}/mask", mask)
        out[prompt] = dict(zip(STREAMS, connectors(embeds, mask, numerics), strict=True))
        for stream in STREAMS:
            probe.tap(f"connector/{prompt}/{stream}", out[prompt][stream])
    return out


def pack_noise(
    video_BCFHW: torch.Tensor, audio_BCLM: torch.Tensor, numerics: Numerics, probe: Probe
) -> dict[str, torch.Tensor]:
    """The initial states as float32 tokens [B,T,C]."""
    state = {"video": positions.pack_video(video_BCFHW, numerics), "audio": positions.pack_audio(audio_BCLM)}
    for stream in STREAMS:
        probe.tap(f"noise/{stream}", state[stream])
    return state


@dataclass(frozen=True, kw_only=True)
class _Loop:
    """What stays the same over the steps. bounds: token bounds by stream, batch B.

    noisy_BT: 0 for video tokens of a given frame, which are clean and see timestep 0, 1 elsewhere; None without one.
    """

    model: LTX2Transformer
    request: Request
    numerics: Numerics
    text: Mapping[str, Mapping[str, torch.Tensor]]
    bounds: Mapping[str, torch.Tensor]
    noisy_BT: torch.Tensor | None
    probe: Probe
    dtype: torch.dtype

    def inputs(self, state: Mapping[str, torch.Tensor], sigma: torch.Tensor, branches: tuple[str, ...]) -> ModelInputs:
        """The branches of one forward, one after the other along the batch."""
        count = len(branches)
        prompts = ["neg" if branch == "uncond" else "pos" for branch in branches]
        packed = {stream: _copies(state[stream].to(self.dtype), count) for stream in STREAMS}
        text = {stream: torch.cat([self.text[prompt][stream] for prompt in prompts]) for stream in STREAMS}
        bounds = {stream: self.bounds[stream].repeat(count, 1, 1, 1) for stream in STREAMS}
        level = (sigma * _TIMESTEP_SCALE).expand(packed["video"].shape[0])
        per_token = self.numerics.timestep_shape == "token"
        times = {
            stream: level[:, None].expand(-1, packed[stream].shape[1]) if per_token else level for stream in STREAMS
        }
        if self.noisy_BT is not None:
            times["video"] = level[:, None] * self.noisy_BT.repeat(count, 1)
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
            sigma=level,
            video_bounds=bounds["video"],
            audio_bounds=bounds["audio"],
            stg_blocks=self.request.stg_blocks if branches == ("stg",) else (),
            isolated=branches == ("modality",),
        )

    def velocities(
        self, step: str, state: Mapping[str, torch.Tensor], sigma: torch.Tensor
    ) -> dict[str, dict[str, torch.Tensor]]:
        """Model output [B,T,C] by stream and branch."""
        out: dict[str, dict[str, torch.Tensor]] = {stream: {} for stream in STREAMS}
        for branches in guidance.forwards(self.request, self.numerics):
            with self.probe.forward(step, branches):
                outputs = self.model(self.inputs(state, sigma, branches), self.numerics)
                for stream, velocity in zip(STREAMS, outputs, strict=True):
                    self.probe.model_tap(f"velocity/{stream}", velocity)
                    out[stream].update(zip(branches, velocity.chunk(len(branches)), strict=True))
        return out


def _copies(x: torch.Tensor, count: int) -> torch.Tensor:
    """``count`` copies along the batch; a single one keeps its strides."""
    return torch.cat([x] * count) if count > 1 else x


def sample(
    model: LTX2Transformer,
    request: Request,
    numerics: Numerics,
    *,
    text: Mapping[str, Mapping[str, torch.Tensor]],
    noise: Mapping[str, torch.Tensor],
    sigmas: torch.Tensor,
    latents: Latents,
    probe: Probe,
    first_BCFHW: torch.Tensor | None = None,
) -> dict[str, torch.Tensor]:
    """Denoise ``noise`` (packed, float32) along ``sigmas`` [N+1]; returns the final states as float32 tokens.

    text: from ``contexts``; ``neg`` must be there when a cfg scale is above 1. first_BCFHW: clean normalised latents
    of a given first frame, float32, F = 1, one picture for all outputs. InputError when the text is missing, or when
    the checkpoint cannot be perturbed as asked.
    """
    check_guidance(model, request)
    if guidance.uses_cfg(request) and "neg" not in text:
        raise InputError("ltx2 one-stage: text of prompt 'neg' is missing; expected it when a cfg scale is above 1")
    dtype, device = model.proj_in.weight.dtype, model.proj_in.weight.device
    state_dtype, x0_dtype, velocity_dtype = (
        dtype if choice == "model" else torch.float32
        for choice in (numerics.latent_dtype, numerics.x0_dtype, numerics.velocity_dtype)
    )
    batch = latents.video[0]
    video = positions.video_bounds(latents.video[2:], request.frame_rate, batch, model.config, device)
    bounds = {
        "video": positions.rounded(video, dtype, numerics),
        "audio": positions.audio_bounds(latents.audio[2], batch, model.config, device),
    }
    probe.tap("sigmas", sigmas)
    for stream in STREAMS:
        probe.tap(f"positions/{stream}", bounds[stream].float())
    noisy = None if first_BCFHW is None else noisy_tokens(latents, device)
    loop = _Loop(
        model=model,
        request=request,
        numerics=numerics,
        text=text,
        bounds=bounds,
        noisy_BT=noisy,
        probe=probe,
        dtype=dtype,
    )
    scales = {"video": request.video_guidance, "audio": request.audio_guidance}
    state = {stream: noise[stream].to(device, state_dtype) for stream in STREAMS}
    if first_BCFHW is not None:
        clean = first_BCFHW.to(device, state_dtype).expand(batch, -1, -1, -1, -1)
        state["video"] = with_first(clean, state["video"], latents, numerics)
    levels = sigmas.to(device)
    with block_taps(model.transformer_blocks, probe):
        for index in range(len(levels) - 1):
            now, later, step = levels[index], levels[index + 1], step_tap(index)
            for stream in STREAMS:
                probe.tap(f"{step}/latents/{stream}", state[stream])
            velocity = loop.velocities(step, state, now)
            for stream in STREAMS:
                x = state[stream]
                x0 = {name: euler.to_x0(x, v, now, x0_dtype) for name, v in velocity[stream].items()}
                guided = guidance.combine(x0, scales[stream], numerics, dtype)
                probe.tap(f"{step}/guided_x0/{stream}", guided)
                slope = euler.to_velocity(x, guided, now, velocity_dtype)
                state[stream] = euler.step(x, slope, now, later, state_dtype)
            if first_BCFHW is not None:
                state["video"] = with_first(clean, state["video"], latents, numerics)
    for stream in STREAMS:
        probe.tap(f"latents/final/{stream}", state[stream])
    return {stream: state[stream].float() for stream in STREAMS}


def noisy_tokens(latents: Latents, device: torch.device) -> torch.Tensor:
    """1 for video tokens [B,T] that are denoised, 0 for those of a given first frame."""
    batch, _, frames, rows, columns = latents.video
    noisy_BFN = torch.ones(batch, frames, rows * columns, device=device)
    noisy_BFN[:, 0] = 0.0
    return noisy_BFN.flatten(1)


def with_first(
    first_BCFHW: torch.Tensor, video_BTC: torch.Tensor, latents: Latents, numerics: Numerics
) -> torch.Tensor:
    """The packed video state with its first latent frame replaced."""
    rest = positions.unpack_video(video_BTC, latents.video[2:])[:, :, 1:]
    return positions.pack_video(torch.cat((first_BCFHW, rest), dim=2), numerics)


def check_guidance(model: LTX2Transformer, request: Request) -> None:
    """InputError when the request perturbs blocks that the checkpoint does not have or lets nobody perturb."""
    layers = model.config.num_layers
    if any(block >= layers for block in request.stg_blocks):
        raise bad_field("request", "stg_blocks", request.stg_blocks, f"block indices below {layers}")
    if request.stg_blocks and not model.config.perturbed_attn:
        raise bad_field("request", "stg_blocks", request.stg_blocks, "none: the checkpoint has perturbed_attn false")
