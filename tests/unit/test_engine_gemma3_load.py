"""Configurations and weights of Gemma3: what is read, what is left out, what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from gemma3_reference import CPU, ODD, save
from safetensors.torch import load_file, save_file

from conformance.errors import InputError
from conformance.tensorfile import read_header
from engine import weights as engine_weights
from engine.models.gemma3 import weights
from engine.models.gemma3.config import Gemma3Config, Rope
from reference_impl.tiny.build import cached

Tensors = dict[str, torch.Tensor]
FILE = "model.safetensors"
STORED = "language_model.model."
# text_config of the text encoders published with LTX-2, with layers left out
PUBLISHED: dict[str, Any] = {
    "_sliding_window_pattern": 6,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "attn_logit_softcapping": None,
    "cache_implementation": "hybrid",
    "dtype": "bfloat16",
    "final_logit_softcapping": None,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 3840,
    "initializer_range": 0.02,
    "intermediate_size": 15360,
    "layer_types": [*["sliding_attention"] * 5, "full_attention", "sliding_attention"],
    "max_position_embeddings": 131072,
    "model_type": "gemma3_text",
    "num_attention_heads": 16,
    "num_hidden_layers": 7,
    "num_key_value_heads": 8,
    "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-06,
    "rope_local_base_freq": 10000,
    "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
    "rope_theta": 1000000,
    "sliding_window": 1024,
    "sliding_window_pattern": 6,
    "use_bidirectional_attention": False,
    "use_cache": True,
    "vocab_size": 262208,
}
NESTED = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
}
FLAT: dict[str, Any] = {"rope_theta": ..., "rope_local_base_freq": ..., "rope_scaling": ...}


def config(folder: Path, **changes: Any) -> Gemma3Config:
    """The published configuration with changes; ``...`` takes a key out."""
    text = {key: value for key, value in (PUBLISHED | changes).items() if value is not ...}
    (folder / "config.json").write_text(json.dumps({"model_type": "gemma3", "text_config": text}))
    return Gemma3Config.load(folder)


def test_published_config(tmp_path: Path) -> None:
    read = config(tmp_path)
    assert read.sliding == (True,) * 5 + (False, True)
    assert read.sliding_rope == Rope(theta=1e4, factor=1.0)
    assert read.full_rope == Rope(theta=1e6, factor=8.0)
    assert (read.head_dim, read.sliding_window, read.query_pre_attn_scalar) == (256, 1024, 256.0)


@pytest.mark.parametrize(
    "changes",
    [
        {"layer_types": ...},
        {"sliding_window_pattern": ...},
        {"rope_scaling": {"factor": 8, "type": "linear"}},
        FLAT | {"rope_parameters": NESTED},
        {"rope_scaling": None, "rope_parameters": NESTED},  # both, in agreement
        {
            "rope_scaling": ...,
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default"},
                "full_attention": {"rope_type": "linear", "factor": 8.0},
            },
        },
    ],
)
def test_other_ways_to_say_the_same(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert config(tmp_path, **changes) == config(tmp_path)


def test_no_scaling(tmp_path: Path) -> None:
    assert config(tmp_path, rope_scaling=None).full_rope == Rope(theta=1e6, factor=1.0)


def nested(kind: str, **changes: Any) -> dict[str, Any]:
    return FLAT | {"rope_parameters": NESTED | {kind: NESTED[kind] | changes}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"layer_types": ..., "sliding_window_pattern": ...},
            "missing field 'layer_types' or 'sliding_window_pattern'",
        ),
        ({"sliding_window_pattern": 5}, r"'sliding_window_pattern' is 5; .*\(layer 4 differs\)"),
        ({"sliding_window_pattern": 0}, "'sliding_window_pattern' is 0; expected a positive integer"),
        ({"layer_types": ["full_attention"] * 6}, "'layer_types' is .*; expected a list of 7 times"),
        ({"layer_types": ["chunked_attention"] * 7}, "'layer_types' is .*; expected a list of 7 times"),
        ({"sliding_window": None}, "'sliding_window' is None; expected of type int"),
        ({"hidden_activation": "silu"}, "'hidden_activation' is 'silu'; expected 'gelu_pytorch_tanh'"),
        ({"attn_logit_softcapping": 50.0}, "'attn_logit_softcapping' is 50.0; expected None"),
        ({"use_bidirectional_attention": True}, "'use_bidirectional_attention' is True; expected False"),
        ({"attention_bias": True}, "'attention_bias' is True; expected False"),
        ({"model_type": "gemma3n_text"}, "'model_type' is 'gemma3n_text'"),
        ({"head_dim": ...}, "missing field 'head_dim'"),
        ({"head_dim": 15}, "'head_dim' is 15; expected an even number"),
        ({"num_key_value_heads": 3}, "'num_key_value_heads' is 3; expected a divisor"),
        ({"brand_new": 1}, "unknown field 'brand_new'"),
        ({"rope_theta": ...}, "'rope_theta' is None; expected a positive number"),
        ({"rope_local_base_freq": 0}, "'rope_theta' is 0; expected a positive number"),
        (
            {"rope_scaling": {"rope_type": "yarn", "factor": 8.0}},
            "'rope_type' is 'yarn'; expected 'default' or 'linear'",
        ),
        ({"rope_scaling": {"factor": 8.0}}, "'factor' is 8.0; expected null, as 'rope_type' is 'default'"),
        ({"rope_scaling": {"rope_type": "linear"}}, "'factor' is None; expected a positive number"),
        ({"rope_scaling": [8.0]}, "'rope_scaling' is .*; expected an object or null"),
        ({"rope_parameters": NESTED}, "'rope_scaling' is .*; expected null beside 'rope_parameters'"),
        (FLAT | {"rope_parameters": {"full_attention": {}}}, "'rope_parameters' is .*; expected an object of"),
        (nested("full_attention", partial_rotary_factor=0.5), "full_attention: unknown field 'partial_rotary_factor'"),
        (nested("sliding_attention") | {"rope_local_base_freq": 5e3}, "'rope_theta' is 10000.0; expected 5000.0"),
    ],
)
def test_refused_configs(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        config(tmp_path, **changes)
    assert "\n" not in str(error.value)


def test_refused_files(tmp_path: Path) -> None:
    for text, message in (
        ("[]", "'model_type' is None"),
        ('{"model_type": "gemma3"}', "expected an object, got NoneType"),
    ):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(InputError, match=message):
            Gemma3Config.load(tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return shutil.copytree(cached("ltx-2.3") / "text_encoder", tmp_path / "text_encoder")


def change(folder: Path, edit: Callable[[Tensors], Any]) -> None:
    tensors = load_file(folder / FILE)
    edit(tensors)
    save_file(tensors, folder / FILE)


def rename(tensors: Tensors) -> None:
    """The layout of module names: everything below ``model``, the text model as ``language_model``."""
    old = dict(tensors)
    tensors.clear()
    for name, tensor in old.items():
        inner = name.replace("language_model.model.", "language_model.")
        tensors[f"model.{inner}"] = tensor
    tensors["lm_head.weight"] = old["language_model.model.embed_tokens.weight"].clone()


def test_both_layouts(folder: Path) -> None:
    published = weights.load(folder, torch.bfloat16, CPU).state_dict()
    stored = load_file(folder / FILE)
    assert {STORED + name for name in published} == {name for name in stored if name.startswith(STORED)}
    for name, tensor in published.items():
        assert torch.equal(tensor, stored[STORED + name])
        assert tensor.data_ptr() % 64 == 0
        assert not tensor.requires_grad
    change(folder, rename)
    renamed = weights.load(folder, torch.float32, CPU).state_dict()
    assert renamed.keys() == published.keys()
    assert all(torch.equal(tensor, published[name].float()) for name, tensor in renamed.items())


def test_sharded_and_saved_by_transformers(tmp_path: Path) -> None:
    save(tmp_path, **ODD)
    whole = weights.load(tmp_path, torch.float32, CPU).state_dict()
    tensors = load_file(tmp_path / FILE)
    (tmp_path / FILE).unlink()
    places = {name: f"{index % 3}.safetensors" for index, name in enumerate(tensors)}
    for place in set(places.values()):
        save_file({name: tensor for name, tensor in tensors.items() if places[name] == place}, tmp_path / place)
    (tmp_path / f"{FILE}.index.json").write_text(json.dumps({"weight_map": places}))
    for name, tensor in weights.load(tmp_path, torch.float32, CPU).state_dict().items():
        assert torch.equal(tensor, whole[name])


def test_image_parts_stay_on_the_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {place.begin: name for name, place in read_header(folder / FILE, "")[0].items()}
    read: list[str] = []
    real = engine_weights._read

    def spy(file: Any, stored: Any, dtype: torch.dtype) -> torch.Tensor:
        read.append(names[stored.begin])
        return real(file, stored, dtype)

    monkeypatch.setattr(engine_weights, "_read", spy)
    weights.load(folder, torch.bfloat16, CPU)
    assert len(read) == len(set(read)) == 7 * 13 + 2
    assert all(name.startswith(STORED) for name in read)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t.pop(STORED + "norm.weight"), r"1 missing \(first 'norm.weight'\)"),
        (lambda t: t.update({STORED + "extra": torch.zeros(1)}), r"1 unknown \(first 'extra'\)"),
        (
            lambda t: t.update({"audio_tower.weight": torch.zeros(1)}),
            r"1 unknown tensors \(first 'audio_tower.weight'\)",
        ),
        (
            lambda t: t.update({"norm.weight": t.pop(STORED + "norm.weight")}),
            r"unknown tensors \(first 'norm.weight'\)",
        ),
        (lambda t: t.update({"model.language_model.norm.weight": torch.zeros(64)}), "expected tensors named .* found"),
        (
            lambda t: [t.pop(name) for name in list(t) if name.startswith(STORED)],
            r"expected tensors named .* found \[\]",
        ),
        (lambda t: t.update({STORED + "norm.weight": torch.zeros(3)}), r"'norm.weight': \(3,\), expected \(64,\)"),
    ],
)
def test_tensors_that_do_not_fit(folder: Path, edit: Callable[[Tensors], Any], message: str) -> None:
    change(folder, edit)
    with pytest.raises(InputError, match=message) as error:
        weights.load(folder, torch.float32, CPU)
    assert "\n" not in str(error.value)


def test_damaged_file(folder: Path) -> None:
    path = folder / FILE
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="truncated"):
        weights.load(folder, torch.float32, CPU)


@pytest.mark.parametrize(("dtype", "stored"), [(torch.float8_e4m3fn, "F8_E4M3"), (torch.int8, "I8")])
def test_quantised_weights(folder: Path, dtype: torch.dtype, stored: str) -> None:
    change(folder, lambda tensors: tensors.update({STORED + "norm.weight": torch.zeros(64, dtype=dtype)}))
    with pytest.raises(InputError, match=f"tensor '{STORED}norm.weight': 'dtype' is '{stored}'; expected one of"):
        weights.load(folder, torch.float32, CPU)
