"""Two stages through diffusers (0.42.1): half size, latent upsampler, full size, as its documentation chains them.

The second stage of image-to-video does not read the picture: upstream holds the first frame of the given latents.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from conformance import guard

guard.install()

import torch  # noqa: E402
from diffusers.pipelines.ltx2.pipeline_ltx2_latent_upsample import LTX2LatentUpsamplePipeline  # noqa: E402

from conformance import checkpoint  # noqa: E402
from conformance.case import Request  # noqa: E402
from conformance.errors import InputError  # noqa: E402
from conformance.generator import Probe  # noqa: E402
from conformance.inputs import noise_generator  # noqa: E402
from reference_impl.diffusers_call import Called, arguments, call, noise, second_arguments  # noqa: E402
from reference_impl.diffusers_load import load_upsampler  # noqa: E402
from reference_impl.diffusers_lora import check_lora, merged  # noqa: E402
from reference_impl.diffusers_taps import TracedPipeline  # noqa: E402

UPSAMPLER, LORA = "latent_upsampler", "distilled_lora"


def two_stages(base: TracedPipeline, folder: Path, dtype: str, request: Request, probe: Probe) -> tuple[Called, Called]:
    """Both calls of a request with a second stage. The components of ``base`` are left as they are.

    InputError when the folder has no upsampler that doubles height and width, or lacks a LoRA that the request needs
    and that fits the transformer.
    """
    second = request.second
    assert second is not None
    upsampler = load_upsampler(folder, dtype, base.device)
    strengths = (second.lora_first, second.lora_second)
    lora = checkpoint.distilled_lora(folder) if any(strengths) else None
    if lora is not None:
        check_lora(lora, base)
    generator = noise_generator(request.seed)

    transformer = base.transformer if lora is None else merged(base, lora, second.lora_first)
    first = call(
        base.components | {"transformer": transformer},
        arguments(request),
        noise(base, request, generator, request.first_size),
        probe,
        "stage.1",
    )
    upsampled_BCFHW = upsample(base, upsampler, first.video, request, probe, folder)
    if lora is not None and second.lora_second != second.lora_first:
        del transformer  # before the next copy
        transformer = merged(base, lora, second.lora_second)
    return first, call(
        base.components | {"transformer": transformer},
        second_arguments(request, first, upsampled_BCFHW),
        noise(base, request, generator, (request.height, request.width)),
        probe,
        "stage.2",
        request.vae_tiling,
    )


def upsample(
    base: TracedPipeline, upsampler: Any, video_BCFHW: torch.Tensor, request: Request, probe: Probe, folder: Path
) -> torch.Tensor:
    """Latents of twice the height and width by ``LTX2LatentUpsamplePipeline``. InputError for another factor."""
    height, width = request.first_size
    pipeline = LTX2LatentUpsamplePipeline(vae=base.vae, latent_upsampler=upsampler)
    handles = (
        upsampler.register_forward_pre_hook(lambda module, args: probe.tap("upsample/input", args[0])),
        upsampler.register_forward_hook(lambda module, args, output: probe.tap("upsample/output", output)),
    )
    try:
        (upsampled,) = pipeline(
            video=None,
            height=height,
            width=width,
            num_frames=request.num_frames,
            spatial_patch_size=1,
            temporal_patch_size=1,
            latents=video_BCFHW,
            latents_normalized=False,
            decode_timestep=0.0,
            decode_noise_scale=None,
            adain_factor=0.0,
            tone_map_compression_ratio=0.0,
            generator=None,
            output_type="latent",
            return_dict=False,
        )
    finally:
        for handle in handles:
            handle.remove()
    *rest, rows, columns = video_BCFHW.shape
    if upsampled.shape != (*rest, 2 * rows, 2 * columns):
        raise InputError(
            f"{folder}: {UPSAMPLER} makes latents of {tuple(upsampled.shape)} from {tuple(video_BCFHW.shape)};"
            " expected twice the height and width"
        )
    return upsampled


def resolved(first: Called, second: Called, request: Request, folder: Path) -> dict[str, Any]:
    """What both stages used, see ``conformance.generator.HANDSHAKE``; without weights and the size of the output."""
    asked = request.second
    assert asked is not None
    merges = asked.lora_first or asked.lora_second
    digests = checkpoint.digests(folder, optional=(UPSAMPLER, LORA)) if merges else {LORA: None}
    _, _, height, width, _ = second.video.shape
    echo = {
        name: second.resolved[name]
        for name in ("sigmas", "video_tokens", "audio_tokens", "noise", "positions", "image")
    }
    lora = {"first": asked.lora_first, "second": asked.lora_second, "digest": digests[LORA]}
    return first.resolved | {"second_stage": {"height": height, "width": width, **echo, "lora": lora}}
