"""Vocoder configurations: what older checkpoints lack, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from audio_reference import vocoder_folder
from engine_reference import CPU
from safetensors.torch import load_file, save_file

from conformance.errors import InputError
from engine import components
from engine.models.ltx2.vocoder import config as configs
from engine.models.ltx2.vocoder import model as vocoder
from reference_impl.tiny.build import cached


def edited(folder: Path, target: Path, **changes: Any) -> Path:
    """A copy of the configuration; ``...`` takes a key away."""
    data = json.loads((folder / "config.json").read_text()) | changes
    target.mkdir(exist_ok=True)
    (target / "config.json").write_text(json.dumps({key: value for key, value in data.items() if value is not ...}))
    return target


def test_fields_that_older_checkpoints_lack(tmp_path: Path) -> None:
    whole = vocoder_folder("ltx-2")
    newer = ("act_fn", "antialias", "antialias_ratio", "antialias_kernel_size", "final_act_fn", "final_bias")
    assert configs.load(edited(whole, tmp_path, **dict.fromkeys(newer, ...))) == configs.load(whole)
    with pytest.raises(InputError, match="missing field 'bwe_final_bias'"):
        configs.load(edited(vocoder_folder("ltx-2.3"), tmp_path, bwe_final_bias=...))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"_class_name": "Other"},
            r"'_class_name' is 'Other'; expected one of \('LTX2Vocoder', 'LTX2VocoderWithBWE'\)",
        ),
        ({"_class_name": ["LTX2Vocoder"]}, "'_class_name' is .*; expected one of"),
        ({"act_fn": "relu"}, "'act_fn' is 'relu'; expected one of"),
        ({"final_act_fn": "sigmoid"}, "'final_act_fn' is 'sigmoid'; expected one of"),
        ({"antialias": True}, "'antialias' is True; expected False, which is all .* with leaky_relu"),
        ({"act_fn": "snake"}, "'antialias' is False; expected True, which is all .* with snake"),
        ({"upsample_factors": [5]}, r"'upsample_kernel_sizes' is \(9, 3\); expected 1 values"),
        ({"upsample_factors": []}, r"'upsample_factors' is \[\]; expected a list of one value or more"),
        ({"upsample_factors": 5}, "'upsample_factors' is 5; expected a list of one value or more"),
        ({"upsample_kernel_sizes": [8, 3]}, r"'upsample_kernel_sizes' is \(8, 3\); expected the factors"),
        ({"upsample_kernel_sizes": [9, 1]}, r"'upsample_kernel_sizes' is \(9, 1\); expected the factors"),
        ({"resnet_dilations": [[1]]}, "'resnet_dilations' is .*; expected 3 lists"),
        ({"resnet_dilations": [[1], [1], ["a"]]}, "'resnet_dilations' is 'a'; expected of type int"),
        ({"hidden_channels": 18}, "'hidden_channels' is 18; expected a multiple of 4"),
        ({"output_sampling_rate": None}, "'output_sampling_rate' is None"),
        ({"brand_new": 1}, "unknown field 'brand_new'"),
    ],
)
def test_generators_that_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        vocoder.load(edited(vocoder_folder("leaky"), tmp_path, **changes), torch.float32, CPU)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bwe_hidden_channels": 18}, "'bwe_hidden_channels' is 18; expected a multiple of 4"),
        ({"output_sampling_rate": 17000}, "'output_sampling_rate' is 17000; expected a multiple of .* 8000"),
        ({"output_sampling_rate": 4000}, "'output_sampling_rate' is 4000; expected a multiple of .* 8000"),
        ({"window_length": 60}, "'window_length' is 60; expected 64"),
        ({"num_mel_channels": 7}, "'bwe_in_channels' is 24; expected 21"),
        ({"bwe_out_channels": 2}, "'bwe_out_channels' is 2; expected 3"),
        ({"hop_length": 20}, r"'bwe_upsample_factors' is \(8, 4\); expected a product of 40"),
    ],
)
def test_extensions_that_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        configs.load(edited(vocoder_folder("extended"), tmp_path, **changes))


def test_constants_of_the_filters_must_be_there(tmp_path: Path) -> None:
    folder = shutil.copytree(vocoder_folder("extended"), tmp_path / "vocoder")
    file = folder / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    save_file({name: value for name, value in tensors.items() if not name.endswith("mel_basis")}, file)
    with pytest.raises(InputError, match=r"BandwidthVocoder: 1 missing \(first 'mel_stft.mel_basis'\)"):
        vocoder.load(folder, torch.float32, CPU)


def test_a_vocoder_for_another_spectrogram(tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    shutil.copytree(cached("ltx-2"), folder)
    shutil.rmtree(folder / "vocoder")
    shutil.copytree(vocoder_folder("leaky"), folder / "vocoder")
    with pytest.raises(InputError, match="vocoder: 'in_channels' is 12; expected the audio VAE's 128 mel bins"):
        components.load(folder, torch.float32, CPU)
