"""Strict loading of weights and configurations."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_reference import CPU
from safetensors.torch import load_file, save_file

from conformance.errors import InputError
from engine.models.ltx2 import weights
from engine.models.ltx2.config import ConnectorsConfig, TransformerConfig
from engine.models.ltx2.transformer import LTX2Transformer
from engine.sampling.schedule import ScheduleConfig
from reference_impl.tiny.build import cached

FILE = "diffusion_pytorch_model.safetensors"
Tensors = dict[str, torch.Tensor]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return shutil.copytree(cached("ltx-2.3") / "transformer", tmp_path / "transformer")


def load(folder: Path, dtype: torch.dtype = torch.float32) -> LTX2Transformer:
    return weights.load(partial(LTX2Transformer, TransformerConfig.load(folder)), folder, dtype, CPU)


def change(folder: Path, edit: Callable[[Tensors], Any]) -> None:
    tensors = load_file(folder / FILE)
    edit(tensors)
    save_file(tensors, folder / FILE)


def test_loads_as_asked_and_aligned(folder: Path) -> None:
    stored = load_file(folder / FILE)
    for dtype in (torch.float32, torch.bfloat16):
        state = load(folder, dtype).state_dict()
        for name, tensor in state.items():
            assert torch.equal(tensor, stored[name].to(dtype))
            assert tensor.data_ptr() % 64 == 0
            assert not tensor.requires_grad


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t.pop("proj_in.bias"), r"1 missing \(first 'proj_in.bias'\)"),
        (lambda t: t.update(extra=torch.zeros(1)), r"1 unknown \(first 'extra'\)"),
        (
            lambda t: t.update({"proj_in.bias": torch.zeros(3)}),
            r"1 of another shape \(first 'proj_in.bias': \(3,\), expected \(128,\)\)",
        ),
        (lambda t: (t.pop("proj_in.bias"), t.update(extra=torch.zeros(1))), "1 missing .*; 1 unknown"),
    ],
)
def test_tensors_that_do_not_fit(folder: Path, edit: Callable[[Tensors], Any], message: str) -> None:
    change(folder, edit)
    with pytest.raises(InputError, match=f"LTX2Transformer: .*{message}") as error:
        load(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("damage", "message"), [("absent", "file is missing"), ("empty", "truncated"), ("truncated", "truncated")]
)
def test_damaged_file(folder: Path, damage: str, message: str) -> None:
    path = folder / FILE
    data = path.read_bytes()
    path.unlink()
    if damage != "absent":
        path.write_bytes(b"" if damage == "empty" else data[: len(data) // 2])
    with pytest.raises(InputError, match=message) as error:
        load(folder)
    assert "\n" not in str(error.value)


def write_index(folder: Path, weight_map: dict[str, str]) -> None:
    (folder / f"{FILE}.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_sharded_index(folder: Path) -> None:
    whole = load(folder).state_dict()
    tensors, files = load_file(folder / FILE), ("a.safetensors", "b.safetensors")
    (folder / FILE).unlink()
    weight_map = {name: files[index % 2] for index, name in enumerate(tensors)}
    for file in files:
        save_file({name: tensors[name] for name, place in weight_map.items() if place == file}, folder / file)
    write_index(folder, weight_map)
    for name, tensor in load(folder).state_dict().items():
        assert torch.equal(tensor, whole[name])


@pytest.mark.parametrize("name", ["../a.safetensors", "/etc/passwd", ".."])
def test_index_cannot_leave_the_folder(folder: Path, name: str) -> None:
    write_index(folder, {"proj_in.bias": name})
    with pytest.raises(InputError, match="expected file names inside the folder"):
        load(folder)


def edit_json(path: Path, **changes: Any) -> None:
    data = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in data.items() if value is not ...}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rope_type": "interleaved"}, "'rope_type' is 'interleaved'; expected 'split'"),
        ({"rope_type": ...}, "'rope_type' is 'interleaved'"),
        ({"patch_size": 2}, "'patch_size' is 2; expected 1"),
        ({"norm_elementwise_affine": True}, "'norm_elementwise_affine' is True"),
        ({"use_keyframes_abs_pos_embedding": True}, "'use_keyframes_abs_pos_embedding' is True"),
        ({"ff_bias": 1}, "'ff_bias' is 1; expected True"),
        ({"num_layers": ...}, "missing field 'num_layers'"),
        ({"num_layers": "3"}, "'num_layers' is '3'; expected of type int"),
        ({"num_layers": 0}, "'num_layers' is 0; expected positive"),
        ({"vae_scale_factors": [8, 32]}, "'vae_scale_factors' is .*; expected a list of 3 values"),
        ({"brand_new": 1}, "unknown field 'brand_new'"),
        ({"cross_attention_dim": 64}, "'cross_attention_dim' is 64; expected 128"),
        ({"audio_cross_attn_mod": False}, "'audio_cross_attn_mod' is False; expected True"),
    ],
)
def test_transformer_config(folder: Path, changes: dict[str, Any], message: str) -> None:
    edit_json(folder / "config.json", **changes)
    with pytest.raises(InputError, match=message):
        TransformerConfig.load(folder)


def test_fields_that_older_checkpoints_lack(tmp_path: Path) -> None:
    folder = shutil.copytree(cached("ltx-2") / "transformer", tmp_path / "transformer")
    newer = ("gated_attn", "cross_attn_mod", "audio_gated_attn", "audio_cross_attn_mod", "use_prompt_embeddings")
    edit_json(folder / "config.json", **dict.fromkeys((*newer, "ff_bias", "use_prompt_adaln_single"), ...))
    assert TransformerConfig.load(folder) == TransformerConfig.load(cached("ltx-2") / "transformer")
    assert TransformerConfig.load(folder).model == "ltx-2"
    assert TransformerConfig.load(cached("ltx-2.3") / "transformer").model == "ltx-2.3"


def test_other_configs(tmp_path: Path) -> None:
    connectors = shutil.copytree(cached("ltx-2") / "connectors", tmp_path / "connectors")
    edit_json(connectors / "config.json", video_connector_num_learnable_registers=None)
    with pytest.raises(InputError, match="'video_connector_num_learnable_registers' is None; expected of type int"):
        ConnectorsConfig.load(connectors)
    scheduler = shutil.copytree(cached("ltx-2") / "scheduler", tmp_path / "scheduler")
    edit_json(scheduler / "scheduler_config.json", shift_terminal=None)
    with pytest.raises(InputError, match=r"'shift_terminal' is None; expected 0.1"):
        ScheduleConfig.load(scheduler)
