"""The given first frame, through the packages' own reading, fitting and encoding of pictures. Version 1.0.0."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import PIL.Image
import torch

from conformance.case import ImageCondition
from conformance.generator import Probe
from conformance.inputs import read_picture
from reference_impl.official.stages import Stage


def conditionings(
    image: ImageCondition | None, stage: Stage, encoder: Any, dtype: torch.dtype, device: torch.device, probe: Probe
) -> list[Any]:
    """What ``denoise_audio_video`` takes: nothing, or the clean latents of the frame at the size of the stage."""
    if image is None:
        return []
    from ltx_core.components.patchifiers import VideoLatentPatchifier
    from ltx_pipelines.utils import combined_image_conditionings
    from ltx_pipelines.utils.args import ImageConditioningInput

    handle = encoder.register_forward_pre_hook(lambda module, args: probe.tap("image/pixels", args[0]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "picture.png")
        PIL.Image.fromarray(read_picture(image)).save(path)
        given = ImageConditioningInput(path=str(path), frame_idx=0, strength=image.strength, crf=image.crf)
        try:
            found = combined_image_conditionings(
                images=[given],
                height=stage.size.height,
                width=stage.size.width,
                video_encoder=encoder,
                dtype=dtype,
                device=device,
            )
        finally:
            handle.remove()
    (frame,) = found
    probe.tap("image/latents", VideoLatentPatchifier(patch_size=1).patchify(frame.latent).flatten(0, 1))
    return list(found)
