"""Checkpoints of released widths and few layers, as the engine's modules name and shape their tensors."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from conformance.tensorfile import read_header
from engine.models.ltx2.config import ConnectorsConfig, TransformerConfig
from engine.models.ltx2.connectors import LTX2Connectors
from engine.models.ltx2.transformer import LTX2Transformer

Shapes = Mapping[str, tuple[int, ...]]
_NOISE = (
    torch.randint(0, 256, (2**20,), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)).numpy().tobytes()
)
_MARK = 4096  # bytes

_DIT: dict[str, Any] = {
    "in_channels": 128,
    "out_channels": 128,
    "num_attention_heads": 32,
    "attention_head_dim": 128,
    "cross_attention_dim": 4096,
    "vae_scale_factors": [8, 32, 32],
    "pos_embed_max_pos": 20,
    "base_height": 2048,
    "base_width": 2048,
    "audio_in_channels": 128,
    "audio_out_channels": 128,
    "audio_num_attention_heads": 32,
    "audio_attention_head_dim": 64,
    "audio_cross_attention_dim": 2048,
    "audio_scale_factor": 4,
    "audio_pos_embed_max_pos": 20,
    "audio_sampling_rate": 16000,
    "audio_hop_length": 160,
    "num_layers": 1,
    "norm_eps": 1e-6,
    "caption_channels": 3840,
    "rope_theta": 10000.0,
    "rope_double_precision": True,
    "rope_type": "split",
    "causal_offset": 1,
    "timestep_scale_multiplier": 1000,
    "cross_attn_timestep_scale_multiplier": 1000,
    "perturbed_attn": True,
}
_CONNECTORS: dict[str, Any] = {
    "caption_channels": 3840,
    "text_proj_in_factor": 3,
    "video_connector_attention_head_dim": 128,
    "video_connector_num_layers": 1,
    "video_connector_num_learnable_registers": 128,
    "audio_connector_num_layers": 1,
    "audio_connector_num_learnable_registers": 128,
    "connector_rope_base_seq_len": 4096,
    "rope_theta": 10000.0,
    "rope_double_precision": True,
    "rope_type": "split",
    "video_hidden_dim": 4096,
    "audio_hidden_dim": 2048,
}


def configs(model: str) -> dict[str, dict[str, Any]]:
    """Transformer and connectors of ``ltx-2`` or ``ltx-2.3``: one block, one layer each, three text layers."""
    later = model == "ltx-2.3"
    heads, audio_dim = (32, 64) if later else (30, 128)
    flags = ("gated_attn", "cross_attn_mod", "audio_gated_attn", "audio_cross_attn_mod")
    connector_flags = ("video_gated_attn", "audio_gated_attn", "per_modality_projections", "proj_bias")
    return {
        "transformer": _DIT | dict.fromkeys(flags, later) | {"use_prompt_embeddings": not later},
        "connectors": _CONNECTORS
        | dict.fromkeys(connector_flags, later)
        | {"video_connector_num_attention_heads": heads, "audio_connector_num_attention_heads": heads}
        | {"audio_connector_attention_head_dim": audio_dim},
    }


def write_configs(model: str, folder: Path) -> None:
    for name, config in configs(model).items():
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text(json.dumps(config))


def shapes(folder: Path) -> dict[str, dict[str, tuple[int, ...]]]:
    """Of every tensor of the components in ``folder``."""
    with torch.device("meta"):
        modules = {
            "transformer": LTX2Transformer(TransformerConfig.load(folder / "transformer")),
            "connectors": LTX2Connectors(ConnectorsConfig.load(folder / "connectors")),
        }
    return {
        name: {key: tuple(value.shape) for key, value in module.state_dict().items()}
        for name, module in modules.items()
    }


def size(shape: tuple[int, ...]) -> int:
    """Bytes of a bfloat16 tensor."""
    return 2 * math.prod(shape)


def stored_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    return {name: tensor.shape for name, tensor in read_header(path, str(path))[0].items()}


def write_text_encoder(folder: Path, *, width: int, layers: int, tokenizer: Path) -> None:
    """A flat folder that has the sizes of a text encoder and hardly any weights."""
    shutil.copytree(tokenizer, folder)
    text = {"hidden_size": width, "num_hidden_layers": layers}
    config = {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "text_config": text}
    (folder / "config.json").write_text(json.dumps(config))
    write_weights(folder / "model.safetensors", {"language_model.model.norm.weight": (width,)})


def write_weights(path: Path, tensors: Shapes, metadata: Mapping[str, str] | None = None) -> int:
    """A safetensors file of bfloat16 tensors; returns the bytes of its tensors.

    Each begins with bits of its own. The rest are holes, which read as zeros and cost no disk.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata or {"format": "pt"})}
    end = 0
    for name, shape in tensors.items():
        begin, end = end, end + size(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for index, name in enumerate(tensors):
            begin, last = header[name]["data_offsets"]
            file.seek(8 + len(text) + begin)
            file.write(_NOISE[index : index + min(_MARK, last - begin)])
        file.truncate(8 + len(text) + end)
    return end
