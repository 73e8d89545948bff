"""diffusers' LTX-2 pipelines (0.42.1), their random draws replaced and their tensors tapped; the arithmetic is theirs.

Shape suffixes: B outputs, T tokens, C channels, F H W latent frames, rows and columns, L audio length, M mel bins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from conformance import guard

guard.install()

import torch  # noqa: E402
from diffusers.pipelines.ltx2.pipeline_ltx2 import LTX2Pipeline  # noqa: E402
from diffusers.pipelines.ltx2.pipeline_ltx2_image2video import LTX2ImageToVideoPipeline  # noqa: E402

from conformance.generator import BLOCK_TAPS, Probe, step_tap  # noqa: E402
from conformance.tiling import VideoTiling  # noqa: E402
from reference_impl.diffusers_tiling import decoding  # noqa: E402
from reference_impl.injected import InjectedNoise  # noqa: E402

STREAMS = ("video", "audio")


@dataclass
class Recording:
    """What one call of the pipeline was given, and what was seen of it.

    noise: unpacked, by stream, fp32 (``video`` [B,C,F,H,W], ``audio`` [B,C,L,M]). stage: ``stage.1`` or ``stage.2``,
    empty where there is only one. state: packed latents by stream, as of the step that runs. step: index of that step,
    -1 before the first. stg_blocks, frame_rate: as the transformer received them. embeds, masks: text encoder output
    of ``pos`` and, under CFG, ``neg``. pixels: what the video VAE encoded.
    """

    probe: Probe
    noise: dict[str, torch.Tensor]
    stage: str = ""
    state: dict[str, torch.Tensor] = field(default_factory=dict)
    step: int = -1
    stg_blocks: tuple[int, ...] = ()
    frame_rate: float | None = None
    use_cross_timestep: bool | None = None
    embeds: dict[str, torch.Tensor] = field(default_factory=dict)
    masks: dict[str, torch.Tensor] = field(default_factory=dict)
    pixels: torch.Tensor | None = None

    @property
    def new_text(self) -> bool:
        """Whether text is tapped: the second stage is given that of the first."""
        return self.stage != "stage.2"

    def name(self, tap: str) -> str:
        """The full name of a tap that belongs to the stage."""
        return f"{self.stage}/{tap}" if self.stage else tap

    def tap(self, name: str, tensor: torch.Tensor) -> None:
        self.probe.tap(self.name(name), tensor)


class Traced:
    """What both pipelines need between :func:`record`'s entry and exit; see there. Mixed in before the pipeline."""

    # what callback_on_step_end may be given; upstream leaves the audio state out
    _callback_tensor_inputs = [*LTX2Pipeline._callback_tensor_inputs, "audio_latents"]  # noqa: RUF012 as upstream
    recording: Recording
    _pack_latents: Any
    _pack_audio_latents: Any
    # components and sizes that the base class sets by name
    scheduler: Any
    transformer: Any
    transformer_spatial_patch_size: int
    transformer_temporal_patch_size: int
    connectors: Any
    text_encoder: Any
    vae: Any
    audio_vae: Any
    vocoder: Any
    vae_spatial_compression_ratio: int
    vae_temporal_compression_ratio: int
    audio_vae_mel_compression_ratio: int
    audio_vae_temporal_compression_ratio: int
    audio_sampling_rate: int
    audio_hop_length: int
    num_timesteps: int
    do_classifier_free_guidance: bool

    def encode_prompt(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor | None, ...]:
        pos, pos_mask, neg, neg_mask = super().encode_prompt(*args, **kwargs)  # type: ignore[misc]
        for sign, embeds, mask in (("pos", pos, pos_mask), ("neg", neg, neg_mask)):
            if embeds is not None:
                self.recording.embeds[sign], self.recording.masks[sign] = embeds, mask
                if self.recording.new_text:
                    self.recording.probe.tap(f"text/{sign}/embeds", embeds)
                    self.recording.probe.tap(f"text/{sign}/mask", mask)
        return pos, pos_mask, neg, neg_mask

    def _packed(self, stream: str, unpacked: torch.Tensor) -> torch.Tensor:
        """A state as the pipeline would pack its own: [B,T,C]."""
        if stream == "audio":
            return self._pack_audio_latents(unpacked)
        return self._pack_latents(unpacked, self.transformer_spatial_patch_size, self.transformer_temporal_patch_size)

    def _start(self, stream: str, prepare: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What the pipeline's own ``prepare`` makes of the injected noise. RuntimeError unless it draws once."""
        noise = self.recording.noise[stream]
        packed = self._packed(stream, noise)
        with InjectedNoise(noise, packed) as injected:
            result = prepare(*args, **kwargs)
        if injected.draws != 1:
            raise RuntimeError(f"the pipeline drew {injected.draws} times for the {stream} state; expected one draw")
        self.recording.tap(f"noise/{stream}", packed)
        self.recording.state[stream] = result[0] if isinstance(result, tuple) else result
        return result

    def prepare_latents(self, *args: Any, **kwargs: Any) -> Any:
        """The state at the start [B,T,C], and with a first frame the mask of what is given [B,T]."""
        result = self._start("video", super().prepare_latents, args, kwargs)  # type: ignore[misc]
        if self.recording.pixels is not None:
            state_BTC, mask_BT = result
            self.recording.tap("image/latents", state_BTC[mask_BT.bool()])
        return result

    def prepare_audio_latents(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        return self._start("audio", super().prepare_audio_latents, args, kwargs)  # type: ignore[misc]

    def _create_noised_state(self, latents: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        stream = "audio" if "video" in self.recording.state else "video"  # the order they are prepared in
        self.recording.tap(f"start/{stream}", latents if latents.ndim == 3 else self._packed(stream, latents))
        return super()._create_noised_state(latents, *args, **kwargs)  # type: ignore[misc]

    def convert_x0_to_velocity(
        self, sample: torch.Tensor, denoised_output: torch.Tensor, step_idx: int, scheduler: Any = None
    ) -> torch.Tensor:
        # the pipeline gives the audio stream a copy of its scheduler
        stream = "video" if scheduler is self.scheduler else "audio"
        # image-to-video unpacks before this call, text-to-video does not
        x0 = self._packed(stream, denoised_output) if denoised_output.ndim == 5 else denoised_output
        self.recording.tap(f"step.{step_idx:03d}/guided_x0/{stream}", x0)
        return super().convert_x0_to_velocity(sample, denoised_output, step_idx, scheduler)  # type: ignore[misc]


class TracedPipeline(Traced, LTX2Pipeline):
    """Text to video."""


class TracedImageToVideo(Traced, LTX2ImageToVideoPipeline):
    """Text and a first frame to video."""


def after_step(
    pipeline: Traced, step: int, timestep: torch.Tensor, tensors: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """``callback_on_step_end``: remember the new state; tap it after the last step."""
    run = pipeline.recording
    run.state = {"video": tensors["latents"], "audio": tensors["audio_latents"]}
    if step + 1 == pipeline.num_timesteps:
        for stream in STREAMS:
            run.tap(f"latents/final/{stream}", run.state[stream])
    return tensors


@contextmanager
def record(
    pipeline: Traced,
    probe: Probe,
    noise: dict[str, torch.Tensor],
    stage: str = "",
    tiling: VideoTiling | None = None,
) -> Iterator[Recording]:
    """Calls of ``pipeline`` inside the block get ``noise`` for their draws and are tapped into ``probe``, one a block.

    stage: see ``Recording``. tiling: of the decoded video. :func:`after_step` must be the call's
    ``callback_on_step_end``, on ``latents`` and ``audio_latents``.
    """
    run = pipeline.recording = Recording(probe=probe, noise=noise, stage=stage)
    handles: list[Any] = []
    with ExitStack() as forward, decoding(pipeline.vae, tiling, probe):

        def enter(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            branches = _branches(pipeline, kwargs)
            if "cond" in branches:
                run.step += 1
                _tap_step(pipeline, run, kwargs, len(branches))
            if branches == ("stg",):
                run.stg_blocks = tuple(kwargs["spatio_temporal_guidance_blocks"])
            run.frame_rate, run.use_cross_timestep = kwargs["fps"], kwargs["use_cross_timestep"]
            forward.enter_context(probe.forward(run.name(step_tap(run.step)), branches))

        def leave(module: torch.nn.Module, args: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
            for stream, velocity in zip(STREAMS, output, strict=True):
                probe.model_tap(f"velocity/{stream}", velocity)
            forward.close()

        try:
            handles.append(pipeline.transformer.register_forward_pre_hook(enter, with_kwargs=True))
            handles.append(pipeline.transformer.register_forward_hook(leave))
            handles.extend(_component_hooks(pipeline, run, probe))
            if probe.depth == "block":
                handles.extend(_block_hooks(pipeline.transformer, probe))
            yield run
        finally:
            for handle in handles:
                handle.remove()
            del pipeline.recording


def _branches(pipeline: Traced, kwargs: dict[str, Any]) -> tuple[str, ...]:
    """The branches in the batch of a transformer call, in order."""
    if kwargs["isolate_modalities"]:
        return ("modality",)
    if kwargs["spatio_temporal_guidance_blocks"]:
        return ("stg",)
    return ("uncond", "cond") if pipeline.do_classifier_free_guidance else ("cond",)


def _tap_step(pipeline: Traced, run: Recording, kwargs: dict[str, Any], branches: int) -> None:
    if run.step == 0:
        run.tap("sigmas", pipeline.scheduler.sigmas)
        for stream in STREAMS:  # repeated once a branch
            run.tap(f"positions/{stream}", kwargs[f"{stream}_coords"].chunk(branches)[0])
    for stream in STREAMS:
        run.tap(f"step.{run.step:03d}/latents/{stream}", run.state[stream])


def _component_hooks(pipeline: Traced, run: Recording, probe: Probe) -> Iterator[Any]:
    tap = probe.tap if run.new_text else run.tap  # what the first stage makes belongs to the request

    def connected(module: torch.nn.Module, args: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
        signs = ("neg", "pos") if pipeline.do_classifier_free_guidance else ("pos",)
        for stream, context in zip(STREAMS, output, strict=False):  # the mask follows
            for sign, part in zip(signs, context.chunk(len(signs)), strict=True):
                tap(f"connector/{sign}/{stream}", part)

    def entering(name: str) -> Callable[..., None]:
        return lambda module, args: probe.tap(name, args[0])

    def leaving(name: str) -> Callable[..., None]:
        return lambda module, args, output: probe.tap(name, output)

    def encoding(module: torch.nn.Module, args: tuple[Any, ...]) -> None:
        run.pixels = args[0]
        run.tap("image/pixels", args[0])

    yield pipeline.connectors.register_forward_hook(connected)
    yield pipeline.vae.encoder.register_forward_pre_hook(encoding)
    yield pipeline.audio_vae.decoder.register_forward_pre_hook(entering("latents/decode/audio"))
    yield pipeline.vocoder.register_forward_hook(leaving("audio/waveform"))


def _block_hooks(transformer: Any, probe: Probe) -> Iterator[Any]:
    def inner(name: str) -> Callable[..., None]:
        return lambda module, args, output: probe.model_tap(name, output)

    def outer(index: int) -> Callable[..., None]:
        def hook(module: torch.nn.Module, args: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
            for stream, hidden in zip(STREAMS, output, strict=True):
                probe.model_tap(f"block.{index:02d}/{stream}", hidden)

        return hook

    for index, block in enumerate(transformer.transformer_blocks):
        for path, tap in BLOCK_TAPS.items():
            yield block.get_submodule(path).register_forward_hook(inner(f"block.{index:02d}/{tap}"))
        yield block.register_forward_hook(outer(index))
