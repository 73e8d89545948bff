"""A given first frame: the engine fits pictures to the clip and encodes them as the official packages do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from engine_reference import CPU
from official_packages import require
from PIL import Image

from conformance.generator import Probe
from conformance.inputs import draw_picture
from engine.image import fitted, through_h264
from engine.models.ltx2 import upsampler
from engine.models.ltx2.video_vae import model as vae
from engine.numerics import preset
from reference_impl.official.load import DTYPES, load
from reference_impl.tiny.build import cached

NAME = f"official-{require('1.0.0')}"

OFFICIAL = preset(NAME)
SIZES = [(64, 96), (64, 64), (75, 101), (40, 31), (201, 90), (33, 131), (128, 192), (3, 2)]


def _picture(height: int, width: int) -> np.ndarray:
    grain = np.random.default_rng(0).integers(-20, 20, (height, width, 3))
    return np.clip(draw_picture("rings", height, width).astype(int) + grain, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("crf", [0, 33])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_pictures_of_any_size_are_fitted_alike(size: tuple[int, int], crf: int, tmp_path: Any) -> None:
    from ltx_pipelines.utils.media_io import load_image_conditioning

    picture = _picture(*size)
    Image.fromarray(picture).save(tmp_path / "picture.png")
    for dtype in DTYPES.values():
        theirs = load_image_conditioning(str(tmp_path / "picture.png"), 64, 96, dtype, CPU, crf)
        mine = fitted(through_h264(picture, crf), 64, 96, OFFICIAL, CPU).to(dtype)
        assert mine.shape == (1, 3, 1, 64, 96)
        assert torch.equal(mine, theirs)
        assert theirs.float().std() > 0.2


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("model", ["ltx-2", "ltx-2.3"])
@torch.inference_mode()
def test_the_frame_is_encoded_and_latents_are_upsampled_alike(model: str, dtype: str) -> None:
    from ltx_core.model.upsampler import upsample_video

    folder = cached(model)
    theirs = load(folder, dtype, "cpu", 32, image=True, second=True)
    mine = vae.load(folder / "vae", DTYPES[dtype], CPU)
    pixels = fitted(_picture(75, 101), 64, 96, OFFICIAL, CPU).to(DTYPES[dtype])
    latents = vae.normalise(mine, vae.encode(mine, pixels))
    assert torch.equal(latents, theirs.video_encoder(pixels))
    larger = upsampler.load(folder / "latent_upsampler", DTYPES[dtype], CPU)
    upsampled = upsampler.upsample(larger, mine, latents, OFFICIAL, Probe())
    assert torch.equal(upsampled, upsample_video(latents, theirs.video_encoder, theirs.upsampler))
