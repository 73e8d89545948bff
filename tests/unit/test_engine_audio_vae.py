"""The audio VAE: bitwise against diffusers, causality, statistics, and configurations that are refused."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from audio_reference import diffusers_vae, draw, other_vae
from diffusers.models.autoencoders.autoencoder_kl_ltx2_audio import AutoencoderKLLTX2Audio
from diffusers.pipelines.ltx2.pipeline_ltx2 import LTX2Pipeline
from engine_reference import CPU, DTYPES, MODELS
from safetensors.torch import load_file, save_file

from conformance.errors import InputError
from engine.models.ltx2.audio_vae import model as audio_vae
from engine.models.ltx2.audio_vae.config import AudioVAEConfig
from reference_impl.tiny.build import cached

NAMES = (*MODELS, "other")


def folder_of(name: str) -> Path:
    return other_vae() if name == "other" else cached(name) / "audio_vae"


@cache
def engine_vae(name: str, dtype: torch.dtype) -> audio_vae.AudioVAE:
    return audio_vae.load(folder_of(name), dtype, CPU)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_decode_and_encode_are_bitwise_equal(name: str, dtype: torch.dtype) -> None:
    vae, reference = engine_vae(name, dtype), diffusers_vae(folder_of(name), dtype)
    config = vae.config
    for length in (1, 4, 7):
        latents = draw(2, config.latent_channels, length, config.latent_bins, dtype=dtype)
        mel = audio_vae.decode(vae, latents)
        assert mel.shape == (2, config.output_channels, 4 * length - 3, config.mel_bins)
        assert mel.dtype == dtype
        assert float(mel.std()) > 0.1
        assert torch.equal(mel, reference.decode(latents, return_dict=False)[0])
    for frames in (1, 8, 11):
        mel = draw(2, config.in_channels, frames, config.mel_bins, dtype=dtype)
        latents = audio_vae.encode(vae, mel)
        assert latents.shape == (2, config.latent_channels, (frames + 3) // 4, config.latent_bins)
        assert float(latents.std()) > 0.1
        assert torch.equal(latents, reference.encode(mel).latent_dist.mode())


def test_no_frame_depends_on_a_later_one() -> None:
    vae = engine_vae("other", torch.float32)
    latents, mel = draw(1, 3, 6, 4), draw(1, 1, 24, 16)
    for kept in (1, 2, 5):
        part = audio_vae.decode(vae, latents[:, :, :kept])
        assert torch.allclose(part, audio_vae.decode(vae, latents)[:, :, : 4 * kept - 3], atol=1e-5)
        part = audio_vae.encode(vae, mel[:, :, : 4 * kept])
        assert torch.allclose(part, audio_vae.encode(vae, mel)[:, :, :kept], atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_statistics_are_cast_to_the_latents(dtype: torch.dtype) -> None:
    vae = engine_vae("ltx-2", dtype)
    tokens = draw(2, 5, 128)
    stats = (vae.latents_mean, vae.latents_std)
    assert torch.equal(audio_vae.denormalise(vae, tokens), LTX2Pipeline._denormalize_audio_latents(tokens, *stats))
    assert torch.equal(audio_vae.normalise(vae, tokens), LTX2Pipeline._normalize_audio_latents(tokens, *stats))
    assert audio_vae.denormalise(vae, tokens).dtype == torch.float32
    back = audio_vae.normalise(vae, audio_vae.denormalise(vae, tokens))
    assert torch.allclose(back, tokens, atol=1e-5)


def test_tensors_of_the_released_size() -> None:
    config = AudioVAEConfig(
        base_channels=128,
        in_channels=2,
        output_channels=2,
        ch_mult=(1, 2, 4),
        num_res_blocks=2,
        latent_channels=8,
        mel_bins=64,
        sample_rate=16000,
        mel_hop_length=160,
    )
    with torch.device("meta"):
        ours = audio_vae.AudioVAE(config).state_dict()
        theirs = AutoencoderKLLTX2Audio().state_dict()
    assert {name: value.shape for name, value in ours.items()} == {name: value.shape for name, value in theirs.items()}


def test_latent_rate() -> None:
    assert engine_vae("ltx-2", torch.float32).config.latents_per_second == 25.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"norm_type": "group"}, "'norm_type' is 'group'; expected 'pixel'"),
        ({"causality_axis": "width"}, "'causality_axis' is 'width'; expected 'height'"),
        ({"attn_resolutions": [8]}, r"'attn_resolutions' is \[8\]; expected None"),
        ({"mid_block_add_attention": True}, "'mid_block_add_attention' is True"),
        ({"dropout": 0.1}, "'dropout' is 0.1; expected 0.0"),
        ({"is_causal": False}, "'is_causal' is False"),
        ({"double_z": False}, "'double_z' is False"),
        ({"ch_mult": [1, 2]}, "'ch_mult' is .*; expected a list of 3 values"),
        ({"mel_bins": None}, "'mel_bins' is None; expected of type int"),
        ({"mel_bins": 18}, "'mel_bins' is 18; expected a multiple of 4"),
        ({"base_channels": 16}, "'base_channels' is 16; expected 12"),
        ({"brand_new": 1}, "unknown field 'brand_new'"),
    ],
)
def test_configurations_that_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    data = json.loads((other_vae() / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(data | changes))
    with pytest.raises(InputError, match=message):
        audio_vae.load(tmp_path, torch.float32, CPU)


def test_statistics_must_be_there(tmp_path: Path) -> None:
    folder = shutil.copytree(other_vae(), tmp_path / "vae")
    file = folder / "diffusion_pytorch_model.safetensors"
    save_file({name: value for name, value in load_file(file).items() if name != "latents_std"}, file)
    with pytest.raises(InputError, match=r"do not fit AudioVAE: 1 missing \(first 'latents_std'\)"):
        audio_vae.load(folder, torch.float32, CPU)


@pytest.mark.parametrize("shape", [(1, 3, 4), (1, 4, 4, 4), (1, 3, 4, 5), (1, 3, 0, 4)])
def test_other_shapes(shape: tuple[int, ...]) -> None:
    vae = engine_vae("other", torch.float32)
    with pytest.raises(InputError, match=r"'latents' is .*; expected a shape \[B, 3, frames, 4\]"):
        audio_vae.decode(vae, torch.zeros(shape))
    with pytest.raises(InputError, match=r"'mel' is .*; expected a shape \[B, 1, frames, 16\]"):
        audio_vae.encode(vae, torch.zeros(shape))
