"""Configurations out of official files: released models, absent keys, and back again."""

from __future__ import annotations

import inspect
import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from diffusers.models.autoencoders.autoencoder_kl_ltx2 import AutoencoderKLLTX2Video
from diffusers.models.autoencoders.autoencoder_kl_ltx2_audio import AutoencoderKLLTX2Audio
from diffusers.models.transformers.transformer_ltx2 import LTX2VideoTransformer3DModel
from diffusers.pipelines.ltx2.connectors import LTX2TextConnectors
from diffusers.pipelines.ltx2.latent_upsampler import LTX2LatentUpsamplerModel
from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder, LTX2VocoderWithBWE
from released_official import LTX23, RELEASED, SHAPES23

from conformance import released
from conformance.unpack import configs, official, picture
from conformance.unpack.fields import Section
from engine.models.ltx2.audio_vae.config import AudioVAEConfig
from engine.models.ltx2.config import ConnectorsConfig, TransformerConfig
from engine.models.ltx2.video_vae.config import VideoVAEConfig
from engine.models.ltx2.vocoder import config as vocoder_config
from reference_impl.official.config import official_config

Config = dict[str, Any]


def derived(model: str) -> dict[str, Config]:
    config, shapes = RELEASED[model]
    return official.derive(Section("file", config), shapes)


def written(folder: Path, found: dict[str, Config]) -> Path:
    for name, config in found.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("model", RELEASED)
def test_released_models(model: str, tmp_path: Path) -> None:
    """Of LTX-2 the file has no key that could be left out: what those stand for is checked with it."""
    folder = written(tmp_path, derived(model))
    assert released.describe(folder) == f"{model} (released)"
    assert TransformerConfig.load(folder / "transformer").model == model.lower()
    ConnectorsConfig.load(folder / "connectors")
    VideoVAEConfig.load(folder / "vae")
    AudioVAEConfig.load(folder / "audio_vae")
    vocoder_config.load(folder / "vocoder")


@pytest.mark.parametrize("model", RELEASED)
def test_keys_are_those_of_diffusers(model: str) -> None:
    vocoder = LTX2Vocoder if model == "LTX-2" else LTX2VocoderWithBWE
    classes = {
        "transformer": LTX2VideoTransformer3DModel,
        "connectors": LTX2TextConnectors,
        "vae": AutoencoderKLLTX2Video,
        "audio_vae": AutoencoderKLLTX2Audio,
        "vocoder": vocoder,
    }
    for name, config in derived(model).items():
        assert config.pop("_class_name") == classes[name].__name__
        assert config.keys() == inspect.signature(classes[name].__init__).parameters.keys() - {"self"}
    upsampler = picture.upsampler(Section("file", {}))
    assert upsampler.pop("_class_name") == "LTX2LatentUpsamplerModel"
    assert upsampler.keys() == inspect.signature(LTX2LatentUpsamplerModel.__init__).parameters.keys() - {"self"}


@pytest.mark.parametrize("model", RELEASED)
def test_back_to_the_official_configuration_and_again(model: str, tmp_path: Path) -> None:
    first = derived(model)
    back = official_config(written(tmp_path, first))
    assert official.derive(Section("file", back), RELEASED[model][1]) == first
    wanted = RELEASED[model][0]["vae"]
    multipliers = [block[1].get("multiplier", 2) for block in wanted["encoder_blocks"][1::2]]
    assert [block[1]["multiplier"] for block in back["vae"]["encoder_blocks"][1::2]] == multipliers
    assert all(type(block[1]["multiplier"]) is int for block in back["vae"]["encoder_blocks"][1::2])
    assert back["vae"].get("spatial_padding_mode") == wanted.get("spatial_padding_mode")


def test_absent_keys_of_ltx_2_3() -> None:
    config: Any = deepcopy(LTX23)
    del config["transformer"]["caption_channels"]  # its configurator assumes the released text encoder
    config["vocoder"]["bwe"]["use_tanh_at_final"] = True  # which it ignores for the second stage
    assert official.derive(Section("file", config), SHAPES23) == derived("LTX-2.3")
    del config["transformer"]["av_ca_timestep_scale_multiplier"]
    del config["transformer"]["connector_positional_embedding_max_pos"]
    del config["vocoder"]["vocoder"]["use_tanh_at_final"]
    found = official.derive(Section("file", config), SHAPES23)
    assert found["transformer"]["cross_attn_timestep_scale_multiplier"] == 1
    assert found["connectors"]["connector_rope_base_seq_len"] == 1
    assert found["vocoder"]["final_act_fn"] == "tanh"
    assert found["vocoder"]["bwe_final_act_fn"] is None


def test_the_audio_connector_takes_after_the_video_connector() -> None:
    config: Any = deepcopy(LTX23)
    del config["transformer"]["audio_connector_attention_head_dim"]
    config["transformer"]["audio_connector_num_layers"] = 5
    found = configs.connectors(Section("file", config["transformer"]), SHAPES23)
    assert [found[f"audio_connector_{name}"] for name in ("attention_head_dim", "num_layers")] == [128, 5]


def test_upsampler_defaults() -> None:
    found = picture.upsampler(
        Section("file", {"_class_name": "LatentUpsampler", "spatial_scale": 1.5, "mid_channels": 1024})
    )
    assert found["rational_spatial_scale"] == 1.5
    assert found["use_rational_resampler"] is False
    assert (found["mid_channels"], found["in_channels"], found["num_blocks_per_stage"]) == (1024, 128, 4)
    assert picture.upsampler(Section("file", {}))["mid_channels"] == 512
