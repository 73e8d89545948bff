"""Which released model a folder's configurations are those of."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
from diffusers.models.autoencoders.autoencoder_kl_ltx2 import AutoencoderKLLTX2Video
from diffusers.models.autoencoders.autoencoder_kl_ltx2_audio import AutoencoderKLLTX2Audio
from diffusers.models.transformers.transformer_ltx2 import LTX2VideoTransformer3DModel
from diffusers.pipelines.ltx2.connectors import LTX2TextConnectors
from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder, LTX2VocoderWithBWE

from conformance import released
from reference_impl.tiny.build import MODELS, cached

# A folder of LTX-2's time: nothing that diffusers added with LTX-2.3, and what differs from its defaults.
OLD: dict[str, dict[str, Any]] = {
    "transformer": {"_class_name": "LTX2VideoTransformer3DModel", "_diffusers_version": "0.37.0", "rope_type": "split"},
    "connectors": {"_class_name": "LTX2TextConnectors", "rope_type": "split", "text_proj_in_factor": 49},
    "vae": {
        "_class_name": "AutoencoderKLLTX2Video",
        "block_out_channels": [256, 512, 1024, 2048],
        "layers_per_block": [4, 6, 6, 2, 2],
        "decoder_causal": False,
    },
    "audio_vae": {"_class_name": "AutoencoderKLLTX2Audio", "ch_mult": [1, 2, 4]},
    "vocoder": {"_class_name": "LTX2Vocoder", "hidden_channels": 1024, "output_sampling_rate": 24000},
}


def folder(path: Path, **changes: dict[str, Any]) -> Path:
    for name, config in OLD.items():
        (path / name).mkdir()
        (path / name / "config.json").write_text(json.dumps(config | changes.get(name, {})))
    return path


def test_a_folder_of_ltx_2s_time(tmp_path: Path) -> None:
    assert released.describe(folder(tmp_path)) == "LTX-2 (released)"


def test_what_guides_but_is_no_part_of_the_model_does_not_count(tmp_path: Path) -> None:
    assert released.describe(folder(tmp_path, transformer={"perturbed_attn": True})) == "LTX-2 (released)"


@pytest.mark.parametrize(
    ("component", "changes", "words"),
    [
        ("transformer", {"num_layers": 47}, "ltx-2 architecture (transformer.num_layers is 47, released 48)"),
        (
            "transformer",
            {"cross_attn_mod": True},
            "ltx-2.3 architecture (transformer.gated_attn is False, released True)",
        ),
        ("connectors", {"video_connector_num_layers": 8}, "(connectors.video_connector_num_layers is 8, released 2)"),
        ("vae", {"upsample_factor": [2, 2, 1]}, "(vae.upsample_factor is [2, 2, 1], released [2, 2, 2])"),
        ("audio_vae", {"sample_rate": 48000}, "(audio_vae.sample_rate is 48000, released 16000)"),
        ("vocoder", {"_class_name": "LTX2VocoderWithBWE"}, "(vocoder._class_name is 'LTX2VocoderWithBWE', released"),
    ],
)
def test_another_configuration_is_named_with_its_first_difference(
    component: str, changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    found = released.describe(folder(tmp_path, **{component: changes}))
    assert found.startswith("another configuration of the ltx-2")
    assert words in found


@pytest.mark.parametrize("model", MODELS)
def test_the_tiny_checkpoints_are_not_released(model: str) -> None:
    assert released.describe(cached(model)).startswith(f"another configuration of the {model} architecture (")


def test_the_values_are_the_defaults_of_diffusers_where_those_are_the_released_ones() -> None:
    """An independent source: the classes were written for LTX-2, that of the second vocoder for LTX-2.3."""
    differ = {"transformer": {"rope_type"}, "connectors": {"rope_type"}, "vae": {"decoder_causal"}}
    unset = {"spatial_compression_ratio", "temporal_compression_ratio"}
    for values, classes in (
        (
            released._LTX2,
            {
                "transformer": LTX2VideoTransformer3DModel,
                "connectors": LTX2TextConnectors,
                "vae": AutoencoderKLLTX2Video,
                "audio_vae": AutoencoderKLLTX2Audio,
                "vocoder": LTX2Vocoder,
            },
        ),
        (released._LTX23, {"vocoder": LTX2VocoderWithBWE}),
    ):
        for component, cls in classes.items():
            parameters = inspect.signature(cls.__init__).parameters
            for key in values[component].keys() - {"_class_name"} - unset:
                default = parameters[key].default
                same = json.loads(json.dumps(default)) == values[component][key]
                assert same != (key in differ.get(component, ())), (component, key, default)
