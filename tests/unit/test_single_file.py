"""Models out of the tiny official single file are those of the tiny folder, bit for bit."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_reference import CPU, engine_connectors, engine_dit
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from conformance.errors import InputError
from engine.models.ltx2 import single_file
from engine.models.ltx2.config import ConnectorsConfig, TransformerConfig
from engine.models.ltx2.connectors import LTX2Connectors
from engine.models.ltx2.transformer import LTX2Transformer
from engine.models.ltx2.vocoder import config as vocoder_config
from engine.models.ltx2.vocoder import model as vocoder
from reference_impl.tiny import official_file
from reference_impl.tiny.build import MODELS, cached

BF16 = torch.bfloat16


def _equal(mine: torch.nn.Module, theirs: torch.nn.Module) -> None:
    wanted = theirs.state_dict()
    found = mine.state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) and found[name].dtype == BF16 for name in wanted)


@pytest.mark.parametrize("model", MODELS)
def test_transformer_connectors_and_vocoder(model: str) -> None:
    path = official_file.cached(model)
    config, connectors = single_file.transformer_config(path), single_file.connectors_config(path)
    assert config == TransformerConfig.load(cached(model) / "transformer")
    expected = ConnectorsConfig.load(cached(model) / "connectors")
    if model == "ltx-2":  # a shared projection has no width for each stream
        expected = replace(expected, video_hidden_dim=4096, audio_hidden_dim=2048)
    assert connectors == expected
    dit = single_file.load(partial(LTX2Transformer, config), path, "transformer", BF16, CPU)
    _equal(dit, engine_dit(model, BF16))
    built = single_file.load(partial(LTX2Connectors, connectors), path, "connectors", BF16, CPU)
    _equal(built, engine_connectors(model, BF16))
    folder = cached(model) / "vocoder"
    sound = single_file.load(partial(vocoder.build, vocoder_config.load(folder)), path, "vocoder", BF16, CPU)
    _equal(sound, vocoder.load(folder, BF16, CPU))


def _changed(path: Path, tmp_path: Path, tensors: dict[str, Any], **config: Any) -> Path:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    whole = json.loads(metadata["config"])
    whole["transformer"] |= config
    stored = {key: value for key, value in (load_file(path) | tensors).items() if value is not None}
    save_file(stored, tmp_path / "changed.safetensors", metadata=metadata | {"config": json.dumps(whole)})
    return tmp_path / "changed.safetensors"


def test_damaged_files(tmp_path: Path) -> None:
    good = official_file.cached("ltx-2.3")
    build = partial(LTX2Transformer, single_file.transformer_config(good))
    key = "model.diffusion_model.proj_out.weight"
    for tensors, message in (
        ({"model.diffusion_model.extra.weight": torch.zeros(1)}, "'model.diffusion_model.extra.weight' is not known"),
        ({key: None}, r"1 missing \(first 'proj_out.weight'\)"),
        ({key: torch.zeros(2, 2)}, r"1 of another shape \(first 'proj_out.weight'"),
    ):
        with pytest.raises(InputError, match=message):
            single_file.load(build, _changed(good, tmp_path, tensors), "transformer", BF16, CPU)
    registers = "model.diffusion_model.audio_embeddings_connector.learnable_registers"
    with pytest.raises(InputError, match="no connector of the audio stream"):
        single_file.connectors_config(_changed(good, tmp_path, {registers: None}))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"rope_type": "interleaved"}, "'rope_type' is 'interleaved'; expected 'split'"),
        ({"frequencies_precision": "float32"}, "'frequencies_precision' is 'float32'"),
        ({"caption_channels": None}, "'caption_channels' is None; expected the text encoder's width"),
    ],
)
def test_configurations_that_are_not_implemented(config: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = _changed(official_file.cached("ltx-2"), tmp_path, {}, **config)
    for read in (single_file.transformer_config, single_file.connectors_config):
        with pytest.raises(InputError, match=message):
            read(path)


def test_files_that_are_no_official_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    with pytest.raises(InputError, match="cannot be read as safetensors"):
        single_file.transformer_config(path)
    path.write_bytes(b"\0" * 64)
    with pytest.raises(InputError, match="cannot be read as safetensors"):
        single_file.transformer_config(path)
    for metadata in (None, {"config": "{"}, {"config": "[]"}, {"config": "{}"}):
        save_file({"x": torch.zeros(1)}, path, metadata=metadata)
        with pytest.raises(InputError, match="no configuration of a transformer"):
            single_file.transformer_config(path)
