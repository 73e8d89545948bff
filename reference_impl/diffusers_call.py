"""One call of a pipeline of diffusers (0.42.1): every argument is given, noise is injected.

So are sigmas where the case states them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from conformance import guard

guard.install()

import PIL.Image  # noqa: E402
import torch  # noqa: E402
from diffusers.models.attention_dispatch import attention_backend  # noqa: E402
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler  # noqa: E402

from conformance.case import Guidance, Request  # noqa: E402
from conformance.generator import Probe, position_digests, tensor_digest  # noqa: E402
from conformance.inputs import draw_noise, read_picture  # noqa: E402
from conformance.tiling import VideoTiling  # noqa: E402
from reference_impl.diffusers_load import DTYPES  # noqa: E402
from reference_impl.diffusers_taps import (  # noqa: E402
    Recording,
    Traced,
    TracedImageToVideo,
    TracedPipeline,
    after_step,
    record,
)

# Guidance field -> stem of the pipeline's argument and property; audio has the prefix ``audio_``.
GUIDANCE = {"cfg": "guidance_scale", "stg": "stg_scale", "modality": "modality_scale", "rescale": "guidance_rescale"}
OFF = Guidance(cfg=1.0, stg=0.0, modality=1.0, rescale=0.0)
BACKEND = "native"  # torch.nn.functional.scaled_dot_product_attention


def injecting(scheduler: FlowMatchEulerDiscreteScheduler) -> FlowMatchEulerDiscreteScheduler:
    """A scheduler that takes sigmas as they are given: no shift, no stretching."""
    return FlowMatchEulerDiscreteScheduler.from_config(
        scheduler.config,
        use_dynamic_shifting=False,
        shift=1.0,
        shift_terminal=None,
        invert_sigmas=False,
        use_karras_sigmas=False,
        use_exponential_sigmas=False,
        use_beta_sigmas=False,
    )


def noise(
    pipeline: Traced, request: Request, generator: torch.Generator, size: tuple[int, int]
) -> dict[str, torch.Tensor]:
    """The harness's next noise, in the shapes of the checkpoint: video [B,C,F,H,W], audio [B,C,L,M], fp32 on the CPU.

    size: height and width in pixels.
    """
    ratio, outputs = pipeline.vae_spatial_compression_ratio, len(request.prompts)
    frames = (request.num_frames - 1) // pipeline.vae_temporal_compression_ratio + 1
    per_second = pipeline.audio_sampling_rate / pipeline.audio_hop_length
    per_second /= float(pipeline.audio_vae_temporal_compression_ratio)
    length = round(request.num_frames / request.frame_rate * per_second)
    audio = pipeline.audio_vae.config
    mels = audio.mel_bins // pipeline.audio_vae_mel_compression_ratio
    channels = pipeline.transformer.config.in_channels
    video_BCFHW, audio_BCLM = draw_noise(
        generator,
        (outputs, channels, frames, size[0] // ratio, size[1] // ratio),
        (outputs, audio.latent_channels, length, mels),
    )
    return {"video": video_BCFHW, "audio": audio_BCLM}


def arguments(request: Request) -> dict[str, Any]:
    """Every argument of ``LTX2Pipeline.__call__``, or with an image of ``LTX2ImageToVideoPipeline.__call__``.

    They are those of the only or the first stage, which leaves its latents to the second.
    """
    absent = dict.fromkeys(
        (
            *("timesteps", "latents", "audio_latents", "prompt_embeds", "prompt_attention_mask"),
            *("negative_prompt_embeds", "negative_prompt_attention_mask", "decode_noise_scale", "system_prompt"),
            *("prompt_max_new_tokens", "prompt_enhancement_kwargs", "attention_kwargs"),
        )
    )
    image = {}
    if request.image is not None:
        picture = read_picture(request.image)
        image = {"image": PIL.Image.fromarray(picture), "image_crf": request.image.crf}
    height, width = request.first_size
    return absent | {
        **_scales(request.video_guidance, request.audio_guidance),
        **image,
        "prompt": list(request.prompts),
        "negative_prompt": list(request.negative_prompts),
        "height": height,
        "width": width,
        "num_frames": request.num_frames,
        "min_seconds": 1.0,  # of predicted durations, which a given num_frames excludes
        "max_seconds": 20.0,
        "frame_rate": request.frame_rate,
        "motion_speed": 1.0,
        "num_inference_steps": request.steps,
        "sigmas": None if request.sigmas is None else list(request.sigmas),
        "spatio_temporal_guidance_blocks": list(request.stg_blocks),
        "noise_scale": 0.0,
        "num_videos_per_prompt": 1,
        "generator": torch.Generator("cpu").manual_seed(request.seed),  # its draws are replaced
        "decode_timestep": 0.0,
        "use_cross_timestep": True,
        "enable_prompt_enhancement": False,
        "prompt_enhancement_seed": 0,
        "output_type": "np" if request.second is None else "latent",
        "return_dict": False,
        "callback_on_step_end": after_step,
        "callback_on_step_end_tensor_inputs": ["latents", "audio_latents"],
        "max_sequence_length": request.text_tokens,
    }


def second_arguments(request: Request, first: Called, upsampled_BCFHW: torch.Tensor) -> dict[str, Any]:
    """Every argument of the second stage's call: no guidance, from the upsampled latents and the first stage's audio.

    The text states are those of the first stage: the text encoder would make the same again.
    """
    second = request.second
    assert second is not None
    return arguments(request) | {
        **_scales(OFF, OFF),
        "prompt": None,
        "negative_prompt": None,
        "prompt_embeds": first.run.embeds["pos"],
        "prompt_attention_mask": first.run.masks["pos"],
        "height": request.height,
        "width": request.width,
        "num_inference_steps": len(second.sigmas),
        "sigmas": list(second.sigmas),
        "spatio_temporal_guidance_blocks": [],
        "noise_scale": second.sigmas[0],
        "latents": upsampled_BCFHW,
        "audio_latents": first.audio,
        "output_type": "np",
    }


def _scales(video: Guidance, audio: Guidance) -> dict[str, float]:
    return {
        prefix + argument: getattr(guidance, field)
        for prefix, guidance in (("", video), ("audio_", audio))
        for field, argument in GUIDANCE.items()
    }


@dataclass(frozen=True, kw_only=True)
class Called:
    """What a call made, and what the pipeline really used, read back from it.

    video: frames float32 [B,F,H,W,3], or latents [B,C,F,H,W] where the arguments ask for them. audio: waveform [B,C,N]
    or latents [B,C,L,M]. resolved: everything of ``HANDSHAKE`` that is known of a call.
    """

    run: Recording
    scheduler: FlowMatchEulerDiscreteScheduler
    video: Any
    audio: torch.Tensor
    resolved: dict[str, Any]


def call(
    parts: Mapping[str, Any],
    given: dict[str, Any],
    noise: dict[str, torch.Tensor],
    probe: Probe,
    stage: str = "",
    tiling: VideoTiling | None = None,
) -> Called:
    """Call a pipeline made of ``parts`` with the arguments ``given``; an image among them makes it image-to-video.

    noise, stage, tiling: as ``diffusers_taps.record`` takes them.
    """
    pipeline = (TracedImageToVideo if "image" in given else TracedPipeline)(**parts)
    pipeline.set_progress_bar_config(disable=True)
    if given["sigmas"] is not None:
        pipeline.scheduler = injecting(pipeline.scheduler)
    with record(pipeline, probe, noise, stage, tiling) as run, attention_backend(BACKEND):
        video, audio = pipeline(**given)
    sigmas = pipeline.scheduler.sigmas.cpu()
    if given["sigmas"] is not None and not torch.equal(sigmas, torch.tensor([*given["sigmas"], 0.0])):
        raise RuntimeError(f"the scheduler changed the injected sigmas to {sigmas.tolist()}")
    return Called(
        run=run, scheduler=pipeline.scheduler, video=video, audio=audio, resolved=_resolved(pipeline, run, sigmas)
    )


def _resolved(pipeline: Traced, run: Recording, sigmas: torch.Tensor) -> dict[str, Any]:
    dtypes = {value: key for key, value in DTYPES.items()}
    video, audio = run.state["video"], run.state["audio"]
    return {
        "frame_rate": run.frame_rate,
        "steps": pipeline.num_timesteps,
        "sigmas": sigmas.tolist(),
        "video_tokens": video.shape[1],
        "audio_tokens": audio.shape[1],
        "guidance": {
            stream: {field: getattr(pipeline, prefix + name) for field, name in GUIDANCE.items()}
            for stream, prefix in (("video", ""), ("audio", "audio_"))
        },
        "stg_blocks": list(run.stg_blocks),
        "dtype": dtypes[pipeline.transformer.dtype],
        "skip_v2a": False,
        "quantization": "none",
        "image": None if run.pixels is None else tensor_digest(run.pixels),
        "noise": {stream: run.probe.trace[run.name(f"noise/{stream}")].sha256 for stream in ("video", "audio")},
        "positions": position_digests(run.probe.trace, run.stage),
        "embeds": {sign: tensor_digest(embeds) for sign, embeds in run.embeds.items()},
        "batch": video.shape[0],
        "text_tokens": run.embeds["pos"].shape[1],
        "prompt_tokens": {sign: mask.sum(-1).tolist() for sign, mask in run.masks.items()},
        "use_cross_timestep": run.use_cross_timestep,
        "latents_dtype": str(video.dtype).removeprefix("torch."),
    }
