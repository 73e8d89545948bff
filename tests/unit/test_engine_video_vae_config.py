"""Video VAE: its configuration, and the parameters of the released layouts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLLTX2Video
from video_vae_reference import OTHER_CONFIG, RELEASED, folder

from conformance.errors import InputError
from engine.models.ltx2.video_vae.config import VideoVAEConfig
from engine.models.ltx2.video_vae.model import VideoVAE, load


def write(path: Path, config: dict[str, Any]) -> Path:
    (path / "config.json").write_text(json.dumps(config))
    return path


@pytest.mark.parametrize("model", RELEASED)
def test_released_layouts_have_the_names_and_shapes_of_diffusers(model: str, tmp_path: Path) -> None:
    with torch.device("meta"):
        ours = VideoVAE(VideoVAEConfig.load(write(tmp_path, RELEASED[model]))).state_dict()
        theirs = AutoencoderKLLTX2Video(**RELEASED[model]).state_dict()
    assert {name: value.shape for name, value in ours.items()} == {name: value.shape for name, value in theirs.items()}
    assert sum(value.numel() for value in ours.values()) > 5e8


def test_absent_upsample_type_is_that_of_ltx_2(tmp_path: Path) -> None:
    config = {name: value for name, value in RELEASED["ltx-2"].items() if name != "upsample_type"}
    assert VideoVAEConfig.load(write(tmp_path, config)) == VideoVAEConfig.load(write(tmp_path, RELEASED["ltx-2"]))


REFUSED: dict[str, Any] = {
    "timestep_conditioning": True,
    "patch_size_t": 2,
    "decoder_inject_noise": (False, True, False, False),
    "spatio_temporal_scaling": (True, True, False),
    "decoder_spatio_temporal_scaling": (True, False, True),
    "encoder_spatial_padding_mode": "replicate",
    "decoder_spatial_padding_mode": "circular",
    "downsample_type": ("temporal", "conv", "spatiotemporal"),
    "upsample_type": ("spatial", "temporal"),
    "layers_per_block": (1, 2, 1),
    "decoder_layers_per_block": (1, 1, 2, 1, 1),
    "upsample_residual": (True, False),
    "block_out_channels": (16, 16, 36),
    "decoder_block_out_channels": (16, 32, 32),
    "upsample_factor": (3, 1, 2),
    "spatial_compression_ratio": 16,
    "temporal_compression_ratio": 8,
    "encoder_causal": 1,
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"config\.json: '{name}' is "):
        VideoVAEConfig.load(write(tmp_path, OTHER_CONFIG | {name: REFUSED[name]}))


def test_upward_steps_make_the_ratio_too(tmp_path: Path) -> None:
    changes = {"upsample_type": ("spatial", "temporal", "spatial")}
    with pytest.raises(InputError, match="'temporal_compression_ratio' is 4; expected 2, as 'upsample_type' implies"):
        VideoVAEConfig.load(write(tmp_path, OTHER_CONFIG | changes))


def test_unknown_and_missing_fields(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown field 'dropout'"):
        VideoVAEConfig.load(write(tmp_path, OTHER_CONFIG | {"dropout": 0.1}))
    with pytest.raises(InputError, match="missing field 'patch_size'"):
        VideoVAEConfig.load(
            write(tmp_path, {name: value for name, value in OTHER_CONFIG.items() if name != "patch_size"})
        )


def test_weights_of_another_layout(tmp_path: Path) -> None:
    config = json.loads((folder("ltx-2") / "config.json").read_text())
    (tmp_path / "diffusion_pytorch_model.safetensors").symlink_to(
        folder("ltx-2") / "diffusion_pytorch_model.safetensors"
    )
    with pytest.raises(InputError, match=r"tensors do not fit VideoVAE: \d+ missing \(first 'decoder.mid_block"):
        load(write(tmp_path, config | {"decoder_layers_per_block": [1, 1, 1, 2]}), torch.float32, torch.device("cpu"))
