"""Names of weights: official single file <-> diffusers folder, strict and one to one."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors import safe_open

from conformance.errors import InputError
from engine.models.ltx2 import mapping
from reference_impl.tiny.build import MODELS, cached


def _names(folder: Path) -> dict[str, dict[str, str]]:
    """Every tensor name by component, as name and as value."""
    found = {}
    for component in mapping.COMPONENTS:
        (path,) = (folder / component).glob("*.safetensors")
        with safe_open(path, framework="pt") as file:
            found[component] = {key: f"{component}/{key}" for key in file.keys()}  # noqa: SIM118 - not a mapping
    return found


@pytest.mark.parametrize("model", MODELS)
def test_round_trip(model: str) -> None:
    components = _names(cached(model))
    official = mapping.to_official(components)
    assert len(official) == sum(map(len, components.values()))
    assert mapping.to_diffusers(official) == components
    for component in ("transformer", "connectors"):
        roots = {key.split(".")[0] for key, value in official.items() if value.startswith(f"{component}/")}
        assert roots <= {"model", "text_embedding_projection"}


@pytest.mark.parametrize(
    ("official", "component", "name"),
    [
        ("model.diffusion_model.patchify_proj.weight", "transformer", "proj_in.weight"),
        ("model.diffusion_model.adaln_single.linear.bias", "transformer", "time_embed.linear.bias"),
        (
            "model.diffusion_model.audio_prompt_adaln_single.linear.bias",
            "transformer",
            "audio_prompt_adaln.linear.bias",
        ),
        (
            "model.diffusion_model.av_ca_v2a_gate_adaln_single.emb.timestep_embedder.linear_1.weight",
            "transformer",
            "av_cross_attn_audio_v2a_gate.emb.timestep_embedder.linear_1.weight",
        ),
        (
            "model.diffusion_model.transformer_blocks.47.audio_to_video_attn.q_norm.weight",
            "transformer",
            "transformer_blocks.47.audio_to_video_attn.norm_q.weight",
        ),
        (
            "model.diffusion_model.transformer_blocks.0.scale_shift_table_a2v_ca_audio",
            "transformer",
            "transformer_blocks.0.audio_a2v_cross_attn_scale_shift_table",
        ),
        (
            "model.diffusion_model.audio_embeddings_connector.transformer_1d_blocks.1.ff.net.0.proj.weight",
            "connectors",
            "audio_connector.transformer_blocks.1.ff.net.0.proj.weight",
        ),
        ("text_embedding_projection.aggregate_embed.weight", "connectors", "text_proj_in.weight"),
        ("vae.per_channel_statistics.std-of-means", "vae", "latents_std"),
        (
            "vae.encoder.down_blocks.8.res_blocks.1.conv2.conv.bias",
            "vae",
            "encoder.mid_block.resnets.1.conv2.conv.bias",
        ),
        ("vae.encoder.down_blocks.5.conv.conv.bias", "vae", "encoder.down_blocks.2.downsamplers.0.conv.conv.bias"),
        ("vae.decoder.up_blocks.3.conv.conv.bias", "vae", "decoder.up_blocks.1.upsamplers.0.conv.conv.bias"),
        (
            "audio_vae.decoder.up.2.block.0.nin_shortcut.conv.bias",
            "audio_vae",
            "decoder.up.2.block.0.nin_shortcut.conv.bias",
        ),
        ("vocoder.ups.0.weight", "vocoder", "upsamplers.0.weight"),
        (
            "vocoder.bwe_generator.resblocks.3.acts2.1.downsample.lowpass.filter",
            "vocoder",
            "bwe_generator.resnets.3.acts2.1.downsample.filter",
        ),
        ("vocoder.vocoder.act_post.upsample.filter", "vocoder", "vocoder.act_out.upsample.filter"),
        ("vocoder.mel_stft.mel_basis", "vocoder", "mel_stft.mel_basis"),
    ],
)
def test_released_names(official: str, component: str, name: str) -> None:
    assert mapping.diffusers_name(official) == (component, name)
    assert mapping.official_name(component, name) == official


@pytest.mark.parametrize(
    "key",
    [
        "model.diffusion_model.transformer_blocks.0.attn1.to_q.scale",
        "model.diffusion_model.transformer_blocks.x.attn1.to_q.weight",
        "diffusion_model.patchify_proj.weight",
        "vae.decoder.up_blocks.9.conv.conv.bias",
        "vae.decoder.last_scale_shift_table",
        "vocoder.vocoder.acts.0.act.alpha",
        "",
    ],
)
def test_an_unknown_official_name_is_refused(key: str) -> None:
    with pytest.raises(InputError, match="is not known") as error:
        mapping.to_diffusers({"vocoder.conv_pre.bias": 0, key: 1})
    assert repr(key) in str(error.value)


@pytest.mark.parametrize(
    ("component", "key"), [("vae", "proj_in.weight"), ("transformer", "proj_in.weigh"), ("vae", "")]
)
def test_an_unknown_diffusers_name_is_refused(component: str, key: str) -> None:
    with pytest.raises(InputError, match="is not known") as error:
        mapping.to_official({component: {key: 0}})
    assert f"{component}: tensor {key!r}" in str(error.value)


def test_unused_statistics_are_dropped_and_a_missing_component_is_named() -> None:
    official = mapping.to_official(_names(cached("ltx-2")))
    assert mapping.to_diffusers(official | dict.fromkeys(mapping.UNUSED, "")) == mapping.to_diffusers(official)
    without = {key: value for key, value in official.items() if not key.startswith("audio_vae.")}
    with pytest.raises(InputError, match="no tensor of component 'audio_vae'"):
        mapping.to_diffusers(without)
