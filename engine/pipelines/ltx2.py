"""LTX-2 and LTX-2.3 video with audio, from text or text and a first frame, in one stage or two: request to latents.

Legend: B prompts, T tokens of a stream, C latent channels, F H W frames, rows and columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch

from conformance.case import Guidance, Request, SecondStage
from conformance.errors import bad_field
from conformance.generator import Probe, tensor_digest
from conformance.inputs import (
    HALF_STEP_SEED,
    STEP_SEED,
    draw_injected,
    draw_noise,
    noise_generator,
    read_picture,
)
from engine import components, image
from engine.models.ltx2 import positions
from engine.models.ltx2.connectors import LTX2Connectors
from engine.models.ltx2.transformer import LTX2Transformer
from engine.models.ltx2.upsampler import LatentUpsampler, upsample
from engine.numerics import Numerics
from engine.pipelines import ltx2_stage, ltx2_starts
from engine.pipelines.ltx2_inputs import STREAMS, Latents, TextStates, contexts, pack_noise
from engine.sampling import guidance
from engine.sampling.branches import Spread, run_all
from engine.sampling.given import Given
from engine.sampling.schedule import ScheduleConfig, given, schedule

Sampler = Literal["euler", "res2s"]
Text = Mapping[str, Mapping[str, torch.Tensor]]
# sampler of each pipeline
PIPELINES: dict[str, Sampler] = {
    "one-stage-t2v": "euler",
    "one-stage-ti2v": "euler",
    "two-stage-t2v": "euler",
    "two-stage-ti2v": "euler",
    "two-stage-hq-t2v": "res2s",
    "two-stage-hq-ti2v": "res2s",
}
_UNGUIDED = Guidance(cfg=1.0, stg=0.0, modality=1.0, rescale=0.0)


@dataclass(frozen=True, kw_only=True)
class Models:
    """What a request runs on. second: the second stage's transformer and what comes before it, where there is one."""

    first: LTX2Transformer
    second: tuple[LatentUpsampler, LTX2Transformer] | None
    connectors: LTX2Connectors
    parts: components.Components
    curve: ScheduleConfig


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What a stage worked on and ended with: sizes, noise levels [N+1], the tensors both sides must agree on, final
    states [B,T,C].
    """

    sizes: Latents
    sigmas: torch.Tensor
    noise: Mapping[str, torch.Tensor]
    pixels: torch.Tensor | None
    final: Mapping[str, torch.Tensor]

    def echo(self) -> dict[str, Any]:
        """What is echoed of a stage."""
        return {
            "sigmas": self.sigmas.tolist(),
            "video_tokens": self.noise["video"].shape[1],
            "audio_tokens": self.noise["audio"].shape[1],
            "noise": {stream: tensor_digest(state) for stream, state in self.noise.items()},
            "image": None if self.pixels is None else tensor_digest(self.pixels),
        }


@dataclass(frozen=True, kw_only=True)
class Run:
    """One request on its way. spread: who runs the forwards of a step."""

    models: Models
    request: Request
    sampler: Sampler
    numerics: Numerics
    probe: Probe
    spread: Spread = run_all

    def text(self) -> tuple[dict[str, TextStates], dict[str, dict[str, torch.Tensor]]]:
        """Text encoder states and contexts by prompt (``pos`` and, under CFG, ``neg``)."""
        request = self.request
        prompts = {"pos": request.prompts}
        if guidance.uses_cfg((request.video_guidance, request.audio_guidance)):
            prompts["neg"] = request.negative_prompts
        states = {
            name: components.encode(self.models.parts, each, request.text_tokens) for name, each in prompts.items()
        }
        for name, each in states.items():
            for part, tensor in (("embeds", each.embeds), ("mask", each.mask)):
                if tensor is not None:
                    self.probe.tap(f"text/{name}/{part}", tensor)
        return states, contexts(self.models.connectors, states, self.numerics, self.probe)

    def stages(self, states: Mapping[str, TextStates], text: Text) -> tuple[Stage, ...]:
        """The one stage, or both; the arguments are what ``text`` returned."""
        source = noise_generator(self.request.seed)
        if self.request.second is None:
            return (self._first(text, source),)
        with self.probe.scope("stage.1"):
            first = self._first(text, source)
        if self.models.second is None:
            raise ValueError("a second stage was asked for and no model of it loaded")
        upsampler, transformer = self.models.second
        small = positions.unpack_video(first.final["video"], first.sizes.video[2:])
        large = upsample(upsampler, self.models.parts.vae, small, self.numerics, self.probe)
        with self.probe.scope("stage.2"):
            if self.numerics.connector_batch == "pair":  # of the one prompt that is used
                text = contexts(self.models.connectors, {"pos": states["pos"]}, self.numerics, self.probe)
            return first, self._second(transformer, self.request.second, text, source, first, large)

    def _first(self, text: Text, source: torch.Generator) -> Stage:
        request, numerics = self.request, self.numerics
        sizes = self._sizes(*request.first_size)
        noise = self._noise(source, sizes)
        if request.sigmas is None:
            # these pipelines count tokens whatever the others do
            counting = replace(numerics, schedule_tokens="real") if self.sampler == "res2s" else numerics
            sigmas = schedule(request.steps, noise["video"].shape[1], self.models.curve, counting)
        else:
            sigmas = given(request.sigmas)
        pixels, held = self._picture(*request.first_size, sizes)
        state = ltx2_starts.from_noise(noise, held, sizes, numerics, self._state_dtype)
        scales = {"video": request.video_guidance, "audio": request.audio_guidance}
        plan = self._plan(scales, request.stg_blocks)
        final = self._sample(self.models.first, plan, text, state, sigmas, sizes, held)
        return Stage(sizes=sizes, sigmas=sigmas, noise=noise, pixels=pixels, final=final)

    def _second(
        self,
        transformer: LTX2Transformer,
        second: SecondStage,
        text: Text,
        source: torch.Generator,
        first: Stage,
        large_BCFHW: torch.Tensor,
    ) -> Stage:
        """From the first stage's latents, upsampled and normalised [B,C,F,2H,2W]."""
        request, numerics = self.request, self.numerics
        sizes = self._sizes(request.height, request.width)
        if tuple(large_BCFHW.shape) != sizes.video:
            expected = f"{sizes.video}, twice the rows and columns"
            raise bad_field("latent_upsampler", "output shape", tuple(large_BCFHW.shape), expected)
        noise = self._noise(source, sizes)
        sigmas = given(second.sigmas)
        pixels, held = None, None
        if request.image is not None and numerics.second_given_frame == "encoded":
            pixels, held = self._picture(request.height, request.width, sizes)
        elif request.image is not None:
            held = ltx2_starts.given_frame(large_BCFHW[:, :, :1], request.image.strength, sizes, numerics)
        start = {
            "video": positions.pack_video(large_BCFHW, numerics),
            "audio": ltx2_starts.handed_over(self.models.parts.audio_vae, first.final["audio"], numerics),
        }
        level = second.sigmas[0]
        state = ltx2_starts.from_latents(start, noise, level, held, sizes, numerics, self._state_dtype, self.probe)
        plan = self._plan(dict.fromkeys(STREAMS, _UNGUIDED), ())
        final = self._sample(transformer, plan, text, state, sigmas, sizes, held)
        return Stage(sizes=sizes, sigmas=sigmas, noise=noise, pixels=pixels, final=final)

    @property
    def _state_dtype(self) -> torch.dtype:
        return self._dtype if self.numerics.latent_dtype == "model" else torch.float32

    @property
    def _dtype(self) -> torch.dtype:
        return self.models.first.proj_in.weight.dtype

    @property
    def _device(self) -> torch.device:
        return self.models.first.proj_in.weight.device

    def _sizes(self, height: int, width: int) -> Latents:
        return components.latent_sizes(
            self.models.parts,
            self.models.first.config.in_channels,
            len(self.request.prompts),
            height=height,
            width=width,
            num_frames=self.request.num_frames,
            frame_rate=self.request.frame_rate,
        )

    def _noise(self, source: torch.Generator, sizes: Latents) -> dict[str, torch.Tensor]:
        noise = pack_noise(*draw_noise(source, sizes.video, sizes.audio), self.numerics, self.probe)
        return {stream: state.to(self._device) for stream, state in noise.items()}

    def _picture(self, height: int, width: int, sizes: Latents) -> tuple[torch.Tensor | None, Given | None]:
        """The given first frame as the video VAE takes it, and its tokens; None without one."""
        condition, parts = self.request.image, self.models.parts
        if condition is None:
            return None, None
        if condition.strength < 1.0 and self.numerics.given_tokens == "restored":
            raise bad_field("request.image", "strength", condition.strength, "1.0, as given tokens are restored")
        picture = image.through_h264(read_picture(condition), condition.crf)
        pixels = image.fitted(picture, height, width, self.numerics, self._device).to(parts.vae.dtype)
        self.probe.tap("image/pixels", pixels)
        first_BCFHW = components.encode_image(parts, pixels, self.numerics)
        batch = len(self.request.prompts)
        self.probe.tap("image/latents", first_BCFHW.flatten(2).transpose(1, 2).expand(batch, -1, -1).flatten(0, 1))
        return pixels, ltx2_starts.given_frame(first_BCFHW, condition.strength, sizes, self.numerics)

    def _plan(self, scales: Mapping[str, Guidance], stg_blocks: tuple[int, ...]) -> ltx2_stage.Plan:
        return ltx2_stage.Plan(
            scales=scales,
            stg_blocks=stg_blocks,
            skip_v2a=self.request.skip_v2a,
            frame_rate=self.request.frame_rate,
            sampler=self.sampler,
            # the same noise in every stage
            draw_step=partial(draw_injected, noise_generator(STEP_SEED)),
            draw_substep=partial(draw_injected, noise_generator(HALF_STEP_SEED)),
        )

    def _sample(
        self,
        model: LTX2Transformer,
        plan: ltx2_stage.Plan,
        text: Text,
        state: Mapping[str, torch.Tensor],
        sigmas: torch.Tensor,
        sizes: Latents,
        held: Given | None,
    ) -> dict[str, torch.Tensor]:
        return ltx2_stage.sample(
            model,
            plan,
            self.numerics,
            text=text,
            state=state,
            sigmas=sigmas,
            latents=sizes,
            probe=self.probe,
            given=held,
            spread=self.spread,
        )
