"""Latent upsampler: bit-equal to diffusers' model and pipeline, and what is refused."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.pipelines.ltx2.latent_upsampler import LTX2LatentUpsamplerModel
from diffusers.pipelines.ltx2.pipeline_ltx2 import LTX2Pipeline
from diffusers.pipelines.ltx2.pipeline_ltx2_latent_upsample import LTX2LatentUpsamplePipeline
from video_vae_reference import diffusers_vae, draw, engine_vae

from conformance.errors import InputError
from conformance.generator import Probe
from engine.models.ltx2 import upsampler
from engine.numerics import Numerics
from reference_impl.diffusers_load import realigned
from reference_impl.tiny.build import cached

DTYPES = (torch.float32, torch.bfloat16)
DIFFUSERS = Numerics.diffusers()
CPU = torch.device("cpu")
SHAPES = ((1, 128, 1, 2, 2), (1, 128, 3, 3, 5), (2, 128, 2, 5, 3))
CONFIG: dict[str, Any] = {
    "in_channels": 128,
    "mid_channels": 64,
    "num_blocks_per_stage": 2,
    "dims": 3,
    "spatial_upsample": True,
    "temporal_upsample": False,
    "rational_spatial_scale": 2.0,
    "use_rational_resampler": True,
}
RELEASED = CONFIG | {"mid_channels": 1024, "num_blocks_per_stage": 4}


@cache
def pair(folder: Path, dtype: torch.dtype) -> tuple[upsampler.LatentUpsampler, Any]:
    theirs = LTX2LatentUpsamplerModel.from_pretrained(folder, dtype=dtype, low_cpu_mem_usage=False)
    # the blur's kernel is a buffer made in float32, which from_pretrained leaves so
    return upsampler.load(folder, dtype, CPU), realigned(theirs.to(dtype)).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def scaled(tmp_path_factory: pytest.TempPathFactory) -> dict[float, Path]:
    """Random upsamplers by their scale."""
    folders = {scale: tmp_path_factory.mktemp(f"x{scale}") for scale in (0.75, 1.5, 4.0)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        for scale, folder in folders.items():
            model = LTX2LatentUpsamplerModel(**(CONFIG | {"rational_spatial_scale": scale, "mid_channels": 32}))
            model.save_pretrained(folder)
    return folders


def tiny(model: str) -> Path:
    return cached(model) / "latent_upsampler"


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("model", ["ltx-2", "ltx-2.3"])
def test_model_is_bitwise_equal(model: str, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    ours, theirs = pair(tiny(model), dtype)
    assert hasattr(ours.upsampler, "blur_down") == (model == "ltx-2")
    latents = draw(*shape).to(dtype)
    out = ours(latents)
    assert out.shape == (*shape[:3], 2 * shape[3], 2 * shape[4])
    assert torch.equal(out, theirs(latents))
    assert float(out.float().std()) > 0.1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [0.75, 1.5, 4.0])
def test_rational_scales_are_bitwise_equal(scale: float, dtype: torch.dtype, scaled: dict[float, Path]) -> None:
    ours, theirs = pair(scaled[scale], dtype)
    latents = draw(2, 128, 2, 5, 6).to(dtype)
    out = ours(latents)
    assert out.shape[3:] == (-(-5 * scale // 1), -(-6 * scale // 1))
    assert torch.equal(out, theirs(latents))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("model", ["ltx-2", "ltx-2.3"])
def test_upsample_is_the_pipeline_between_two_stages(model: str, dtype: torch.dtype) -> None:
    """Stage one leaves normalised float32 latents; stage two normalises what the upsampling pipeline gives it."""
    ours, theirs = pair(tiny(model), dtype)
    vae, latents = diffusers_vae(model, dtype), draw(1, 128, 2, 3, 4)
    pipeline = LTX2LatentUpsamplePipeline(vae=vae, latent_upsampler=theirs)
    raised = pipeline(
        latents=latents, latents_normalized=True, height=96, width=128, output_type="latent", return_dict=False
    )[0]
    expected = LTX2Pipeline._normalize_latents(raised, vae.latents_mean, vae.latents_std, vae.config.scaling_factor)
    out = upsampler.upsample(ours, engine_vae(model, dtype), latents, DIFFUSERS, Probe())
    assert out.dtype == dtype
    assert torch.equal(out, expected)


def test_released_layout_has_the_names_and_shapes_of_diffusers(tmp_path: Path) -> None:
    for rational in (True, False):
        config = RELEASED | {"use_rational_resampler": rational}
        (tmp_path / "config.json").write_text(json.dumps(config))
        with torch.device("meta"):
            ours = upsampler.LatentUpsampler(upsampler.UpsamplerConfig.load(tmp_path)).state_dict()
            theirs = LTX2LatentUpsamplerModel(**config).state_dict()
        assert {name: value.shape for name, value in ours.items()} == {
            name: value.shape for name, value in theirs.items()
        }


REFUSED: dict[str, Any] = {
    "dims": 2,
    "spatial_upsample": False,
    "temporal_upsample": True,
    "rational_spatial_scale": 1.25,
    "mid_channels": 48,
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | {name: REFUSED[name]}))
    with pytest.raises(InputError, match=rf"config\.json: '{name}' is "):
        upsampler.UpsamplerConfig.load(tmp_path)


def test_the_plain_resampler_has_one_scale(tmp_path: Path) -> None:
    changes = {"rational_spatial_scale": 1.5, "use_rational_resampler": False}
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | changes))
    with pytest.raises(InputError, match=r"'rational_spatial_scale' is 1.5; expected one of \(2.0,\)"):
        upsampler.UpsamplerConfig.load(tmp_path)


def test_latents_that_do_not_fit() -> None:
    ours, _ = pair(tiny("ltx-2"), torch.float32)
    with pytest.raises(InputError, match=r"'latents' is \(128, 1, 2, 2\); expected a shape \[B, 128, F, H, W\]"):
        upsampler.upsample(ours, engine_vae("ltx-2", torch.float32), torch.zeros(128, 1, 2, 2), DIFFUSERS, Probe())
    with pytest.raises(InputError, match="'in_channels' is 128; expected the VAE's 16"):
        upsampler.upsample(ours, engine_vae("other", torch.float32), torch.zeros(1, 16, 1, 2, 2), DIFFUSERS, Probe())
