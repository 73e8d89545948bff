"""Configurations out of official files against the configurators of ltx-core 1.0.0; skipped without the package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from official_packages import require
from released_official import RELEASED

from conformance.tensorfile import Tensor
from conformance.unpack import fits, official, picture
from conformance.unpack.fields import Section
from engine.models.ltx2 import mapping

require("1.0.0", "1.2.0")

Shapes = dict[str, tuple[int, ...]]


def theirs(config: dict[str, Any]) -> Shapes:
    """Every tensor that the packages' modules of this configuration have, under the names of the single file."""
    from ltx_core.model import audio_vae, transformer, video_vae
    from ltx_core.text_encoders.gemma.encoders import encoder_configurator as gemma

    builders = {
        "model.diffusion_model.": transformer.LTXModelConfigurator,
        "text": gemma.EmbeddingsProcessorConfigurator,
        "vae.encoder.": video_vae.VideoEncoderConfigurator,
        "vae.decoder.": video_vae.VideoDecoderConfigurator,
        "audio_vae.encoder.": audio_vae.AudioEncoderConfigurator,
        "audio_vae.decoder.": audio_vae.AudioDecoderConfigurator,
        "vocoder.": audio_vae.VocoderConfigurator,
    }
    text = {
        "feature_extractor.": "text_embedding_projection.",
        "video_connector.": "model.diffusion_model.video_embeddings_connector.",
        "audio_connector.": "model.diffusion_model.audio_embeddings_connector.",
    }
    found: Shapes = {}
    for prefix, builder in builders.items():
        with torch.device("meta"):
            state = builder.from_config(config).state_dict()
        for key, value in state.items():
            if ".per_channel_statistics." in f".{key}":
                name = f"{prefix.split('.')[0]}.{key}"
            elif prefix == "text":
                head = next(part for part in text if key.startswith(part))
                name = text[head] + key.removeprefix(head)
            else:
                name = prefix + key
            found[name] = tuple(value.shape)
    return found


@pytest.mark.parametrize("model", RELEASED)
def test_both_read_the_same_models_out_of_a_configuration(model: str) -> None:
    """Every tensor of every component, by name and shape: what absent keys stand for included."""
    config, _ = RELEASED[model]
    shapes = theirs(config)
    derived = official.derive(Section("file", config), shapes)
    components = mapping.to_diffusers({name: Tensor(Path(), "BF16", shape, 0, 0) for name, shape in shapes.items()})
    for name, tensors in components.items():
        fits.check("file", name, derived[name], tensors)


@pytest.mark.parametrize("config", [{}, {"rational_resampler": True, "spatial_scale": 1.5, "mid_channels": 1024}])
def test_both_read_the_same_upsampler(config: dict[str, Any]) -> None:
    from ltx_core.model.upsampler import LatentUpsamplerConfigurator

    with torch.device("meta"):
        state = LatentUpsamplerConfigurator.from_config(config).state_dict()
    tensors = {name: Tensor(Path(), "BF16", tuple(value.shape), 0, 0) for name, value in state.items()}
    fits.check("file", "latent_upsampler", picture.upsampler(Section("file", config)), tensors)
