"""Generator ``diffusers``: LTX-2 and LTX-2.3 video in one stage or two through diffusers' LTX-2 pipelines (0.42.1).

Noise and, where the case states them, sigmas are injected; every argument of the pipelines is given. Where a pipeline
would quietly do something else than the case says, the case is refused.
"""

from __future__ import annotations

from pathlib import Path

from conformance import guard

guard.install()

from conformance import checkpoint, quantization  # noqa: E402
from conformance.case import Case  # noqa: E402
from conformance.errors import InputError, UnsupportedCase, bad_field  # noqa: E402
from conformance.generator import Probe, Sample  # noqa: E402
from conformance.inputs import noise_generator  # noqa: E402
from reference_impl.diffusers_call import BACKEND, GUIDANCE, arguments, call, noise  # noqa: E402
from reference_impl.diffusers_load import load  # noqa: E402
from reference_impl.diffusers_stages import UPSAMPLER, resolved, two_stages  # noqa: E402
from reference_impl.diffusers_taps import TracedPipeline  # noqa: E402

PIPELINES = ("one-stage-t2v", "one-stage-ti2v", "two-stage-t2v", "two-stage-ti2v")
# Model -> whether its transformer modulates text cross attention; tells the checkpoints apart.
MODELS = {"ltx-2": False, "ltx-2.3": True}


def build(folder: Path, device: str) -> DiffusersGenerator:
    """The generator over a checkpoint folder. InputError when the folder is no whole checkpoint."""
    checkpoint.verify(folder)
    return DiffusersGenerator(folder, device)


class DiffusersGenerator:
    """See the module. The pipeline stays loaded from one case to the next while the dtype stays the same."""

    name = "diffusers"

    def __init__(self, folder: Path, device: str) -> None:
        self.folder, self.device = folder, device
        self._loaded: tuple[str, TracedPipeline] | None = None

    def generate(self, case: Case, probe: Probe) -> Sample:
        """Produce the case. UnsupportedCase and InputError say in one line what cannot be done."""
        check_case(case)
        if quantization.resolve(case.quantization, self.folder) != "none":
            raise UnsupportedCase(f"{case.id}: diffusers does not cast weights to fp8 as the official code does")
        base = self._pipeline(case.dtype)
        check_checkpoint(case, base, self.folder)
        request = case.request
        optional: tuple[str, ...] = ()
        if request.second is None:
            drawn = noise(base, request, noise_generator(request.seed), request.first_size)
            last = call(base.components, arguments(request), drawn, probe, tiling=request.vae_tiling)
            echo = last.resolved | {"second_stage": None}
        else:
            optional = (UPSAMPLER,)
            first, last = two_stages(base, self.folder, case.dtype, request, probe)
            echo = resolved(first, last, request, self.folder)
        frames = last.video
        _, num_frames, height, width, _ = frames.shape
        return Sample(
            frames=(frames * 255).round().astype("uint8"),  # as diffusers' VideoProcessor makes images
            frames_float=frames,
            audio=last.audio.float().cpu().numpy(),
            audio_rate=base.vocoder.config.output_sampling_rate,
            latents={stream: latents.cpu() for stream, latents in last.run.state.items()},
            trace=probe.trace,
            tensors=probe.tensors,
            resolved=echo
            | {"vae_tiling": None if request.vae_tiling is None else request.vae_tiling.as_dict()}
            | {"height": height, "width": width, "num_frames": num_frames}
            | {"weights": checkpoint.digests(self.folder, optional=optional)},
            ledger={
                "attention_backend": BACKEND,
                "text_attention": base.text_encoder.config._attn_implementation,
                "scheduler": type(last.scheduler).__name__,
                "scheduler_config": {k: v for k, v in last.scheduler.config.items() if not k.startswith("_")},
            },
        )

    def _pipeline(self, dtype: str) -> TracedPipeline:
        """What the calls take their components from; it is never called itself."""
        if self._loaded is None or self._loaded[0] != dtype:
            self._loaded = None  # first give the memory back
            self._loaded = (dtype, load(self.folder, dtype, self.device))
        return self._loaded[1]


def check_case(case: Case) -> None:
    """UnsupportedCase for what this generator, or the pipeline's argument handling, cannot do."""
    for field, value, able in (
        ("model", case.model, tuple(MODELS)),
        ("pipeline", case.pipeline, PIPELINES),
        ("layout", case.layout.name, ("single",)),
    ):
        if value not in able:
            raise UnsupportedCase(f"{case.id}: diffusers does not run {field} {value!r}; it runs {', '.join(able)}")
    if case.request.skip_v2a:
        raise UnsupportedCase(f"{case.id}: diffusers leaves out both cross attentions between the streams or none")
    image = case.request.image
    if image is not None and image.strength != 1.0:
        raise UnsupportedCase(
            f"{case.id}: diffusers' image-to-video holds the first frame; it knows no strength ({image.strength})"
        )
    if image is not None and image.crf > 0 and min(image.height, image.width) < 2:
        size = (image.height, image.width)
        raise bad_field("request.image", "height, width", size, "at least 2 pixels each, to pass through H.264")
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
