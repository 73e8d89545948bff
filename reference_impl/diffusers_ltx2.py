"""Generator ``diffusers``: LTX-2 and LTX-2.3 one-stage video through diffusers' LTX-2 pipelines (0.42.1).

Noise and, where the case states them, sigmas are injected; every argument of the pipeline is given. Where the pipeline
would quietly do something else than the case says, the case is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from conformance import guard

guard.install()

import PIL.Image  # noqa: E402
import torch  # noqa: E402
from diffusers.models.attention_dispatch import attention_backend  # noqa: E402
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler  # noqa: E402

from conformance import checkpoint  # noqa: E402
from conformance.case import Case, Request  # noqa: E402
from conformance.errors import InputError, UnsupportedCase, bad_field  # noqa: E402
from conformance.generator import Probe, Sample, tensor_digest  # noqa: E402
from conformance.inputs import draw_noise, noise_generator, read_picture  # noqa: E402
from reference_impl.diffusers_load import DTYPES, load  # noqa: E402
from reference_impl.diffusers_taps import (  # noqa: E402
    Recording,
    Traced,
    TracedImageToVideo,
    TracedPipeline,
    after_step,
    record,
)

PIPELINES = ("one-stage-t2v", "one-stage-ti2v")
# Model -> whether its transformer modulates text cross attention; tells the checkpoints apart.
MODELS = {"ltx-2": False, "ltx-2.3": True}
# Guidance field -> stem of the pipeline's argument and property; audio has the prefix ``audio_``.
GUIDANCE = {"cfg": "guidance_scale", "stg": "stg_scale", "modality": "modality_scale", "rescale": "guidance_rescale"}
_BACKEND = "native"  # torch.nn.functional.scaled_dot_product_attention


def build(folder: Path, device: str) -> DiffusersGenerator:
    """The generator over a checkpoint folder. InputError when the folder is no whole checkpoint."""
    checkpoint.verify(folder)
    return DiffusersGenerator(folder, device)


class DiffusersGenerator:
    """See the module. The pipeline stays loaded from one case to the next while the dtype stays the same."""

    name = "diffusers"

    def __init__(self, folder: Path, device: str) -> None:
        self.folder, self.device = folder, device
        self._loaded: tuple[str, TracedPipeline, FlowMatchEulerDiscreteScheduler] | None = None

    def generate(self, case: Case, probe: Probe) -> Sample:
        """Produce the case. UnsupportedCase and InputError say in one line what cannot be done."""
        check_case(case)
        base, scheduler = self._pipeline(case.dtype)
        check_checkpoint(case, base, self.folder)
        request = case.request
        pipeline = base if request.image is None else with_image(base)
        pipeline.scheduler = injecting(scheduler) if request.sigmas is not None else scheduler
        with record(pipeline, probe, noise(pipeline, request)) as run, attention_backend(_BACKEND):
            frames, audio = pipeline(**arguments(request))
        sigmas = pipeline.scheduler.sigmas.cpu()
        if request.sigmas is not None and not torch.equal(sigmas, torch.tensor([*request.sigmas, 0.0])):
            raise RuntimeError(f"the scheduler changed the injected sigmas to {sigmas.tolist()}")
        return Sample(
            frames=(frames * 255).round().astype("uint8"),  # as diffusers' VideoProcessor makes images
            frames_float=frames,
            audio=audio.float().cpu().numpy(),
            audio_rate=pipeline.vocoder.config.output_sampling_rate,
            latents={stream: latents.cpu() for stream, latents in run.state.items()},
            trace=probe.trace,
            tensors=probe.tensors,
            resolved=resolved(pipeline, run, frames.shape) | {"weights": checkpoint.digests(self.folder)},
            ledger={
                "attention_backend": _BACKEND,
                "text_attention": pipeline.text_encoder.config._attn_implementation,
                "scheduler": type(pipeline.scheduler).__name__,
                "scheduler_config": {k: v for k, v in pipeline.scheduler.config.items() if not k.startswith("_")},
            },
        )

    def _pipeline(self, dtype: str) -> tuple[TracedPipeline, FlowMatchEulerDiscreteScheduler]:
        if self._loaded is None or self._loaded[0] != dtype:
            self._loaded = None  # first give the memory back
            pipeline = load(self.folder, dtype, self.device)
            self._loaded = (dtype, pipeline, pipeline.scheduler)
        return self._loaded[1:]


def check_case(case: Case) -> None:
    """UnsupportedCase for what this generator, or the pipeline's argument handling, cannot do."""
    for field, value, able in (
        ("model", case.model, tuple(MODELS)),
        ("pipeline", case.pipeline, PIPELINES),
        ("layout", case.layout.name, ("single",)),
    ):
        if value not in able:
            raise UnsupportedCase(f"{case.id}: diffusers does not run {field} {value!r}; it runs {', '.join(able)}")
    video, audio = case.request.video_guidance, case.request.audio_guidance
    for field in GUIDANCE:
        # the pipeline computes `audio or video`
        if getattr(audio, field) == 0.0 and getattr(video, field) != 0.0:
            raise UnsupportedCase(
                f"{case.id}: diffusers takes an audio {field} of 0.0 for absent and would use the video's"
                f" {getattr(video, field)}"
            )


def check_checkpoint(case: Case, pipeline: TracedPipeline, folder: Path) -> None:
    """InputError when case and checkpoint do not fit, UnsupportedCase when diffusers would draw noise of its own."""
    request, transformer, vae = case.request, pipeline.transformer, pipeline.vae.config
    if transformer.config.cross_attn_mod != MODELS[case.model]:
        raise InputError(f"{folder}: transformer/config.json is not one of {case.model}, which {case.id} asks for")
    blocks = transformer.config.num_layers
    if any(block >= blocks for block in request.stg_blocks):
        raise bad_field("request", "stg_blocks", request.stg_blocks, f"block indices below {blocks}")
    if request.stg_blocks and not transformer.config.perturbed_attn:
        raise UnsupportedCase(f"{case.id}: diffusers ignores STG, as the checkpoint says 'perturbed_attn': false")
    config = pipeline.connectors.config
    for stream in ("video", "audio"):
        registers = config[f"{stream}_connector_num_learnable_registers"]
        if registers is not None and request.text_tokens % registers:
            raise bad_field("request", "text_tokens", request.text_tokens, f"a multiple of {registers} registers")
    injects = vae.decoder_inject_noise  # one switch, or one a block
    if vae.timestep_conditioning or injects is True or (injects and any(injects)):
        raise UnsupportedCase(f"{case.id}: the checkpoint's video decoder draws noise, which cannot be injected")
    if pipeline.scheduler.config.stochastic_sampling:
        raise UnsupportedCase(f"{case.id}: the checkpoint's scheduler draws noise, which cannot be injected")


def with_image(pipeline: TracedPipeline) -> TracedImageToVideo:
    """The image-to-video pipeline of the same components."""
    made = TracedImageToVideo(**pipeline.components)
    made.set_progress_bar_config(disable=True)
    return made


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


def noise(pipeline: Traced, request: Request) -> dict[str, torch.Tensor]:
    """The harness's noise in the shapes of the checkpoint: video [B,C,F,H,W], audio [B,C,L,M], fp32 on the CPU."""
    ratio, outputs = pipeline.vae_spatial_compression_ratio, len(request.prompts)
    frames = (request.num_frames - 1) // pipeline.vae_temporal_compression_ratio + 1
    per_second = pipeline.audio_sampling_rate / pipeline.audio_hop_length
    per_second /= float(pipeline.audio_vae_temporal_compression_ratio)
    length = round(request.num_frames / request.frame_rate * per_second)
    audio = pipeline.audio_vae.config
    mels = audio.mel_bins // pipeline.audio_vae_mel_compression_ratio
    channels = pipeline.transformer.config.in_channels
    video_BCFHW, audio_BCLM = draw_noise(
        noise_generator(request.seed),
        (outputs, channels, frames, request.height // ratio, request.width // ratio),
        (outputs, audio.latent_channels, length, mels),
    )
    return {"video": video_BCFHW, "audio": audio_BCLM}


def arguments(request: Request) -> dict[str, Any]:
    """Every argument of ``LTX2Pipeline.__call__``, or with an image of ``LTX2ImageToVideoPipeline.__call__``."""
    scales = {
        prefix + argument: getattr(guidance, field)
        for prefix, guidance in (("", request.video_guidance), ("audio_", request.audio_guidance))
        for field, argument in GUIDANCE.items()
    }
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
    return absent | {
        **scales,
        **image,
        "prompt": list(request.prompts),
        "negative_prompt": list(request.negative_prompts),
        "height": request.height,
        "width": request.width,
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
        "output_type": "np",
        "return_dict": False,
        "callback_on_step_end": after_step,
        "callback_on_step_end_tensor_inputs": ["latents", "audio_latents"],
        "max_sequence_length": request.text_tokens,
    }


def resolved(pipeline: Traced, run: Recording, frames_shape: tuple[int, ...]) -> dict[str, Any]:
    """What the pipeline really used, read back from it and from its output (``weights`` is added by the caller)."""
    _, num_frames, height, width, _ = frames_shape
    dtypes = {value: key for key, value in DTYPES.items()}
    video, audio = run.state["video"], run.state["audio"]
    return {
        "height": height,
        "width": width,
        "num_frames": num_frames,
        "frame_rate": run.frame_rate,
        "steps": pipeline.num_timesteps,
        "sigmas": pipeline.scheduler.sigmas.tolist(),
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
        "second_stage": None,
        "image": None if run.pixels is None else tensor_digest(run.pixels),
        "noise": {stream: run.probe.trace[f"noise/{stream}"].sha256 for stream in ("video", "audio")},
        "embeds": {sign: tensor_digest(embeds) for sign, embeds in run.embeds.items()},
        "batch": video.shape[0],
        "text_tokens": run.embeds["pos"].shape[1],
        "prompt_tokens": {sign: mask.sum(-1).tolist() for sign, mask in run.masks.items()},
        "use_cross_timestep": run.use_cross_timestep,
        "latents_dtype": str(video.dtype).removeprefix("torch."),
    }
