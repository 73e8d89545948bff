"""Models out of an official single file (``mapping``): weights by component, configurations from its metadata.

Configuration keys and the values absent ones stand for are those of ltx-core 1.0.0.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from conformance.errors import InputError, bad_field
from engine import weights
from engine.models.ltx2 import mapping
from engine.models.ltx2.config import ConnectorsConfig, TransformerConfig

M = TypeVar("M", bound=nn.Module)

# key -> the one implemented value, which is also that of every released file
_FIXED: dict[str, Any] = {
    "rope_type": "split",
    "frequencies_precision": "float64",
    "activation_fn": "gelu-approximate",
    "qk_norm": "rms_norm",
    "attention_bias": True,
    "norm_elementwise_affine": False,
    "use_middle_indices_grid": True,
}
# key -> what an absent one stands for; the same name in the diffusers layout
_SAME: dict[str, Any] = {
    "num_attention_heads": 32,
    "attention_head_dim": 128,
    "in_channels": 128,
    "out_channels": 128,
    "num_layers": 48,
    "cross_attention_dim": 4096,
    "norm_eps": 1e-6,
    "timestep_scale_multiplier": 1000,
    "audio_num_attention_heads": 32,
    "audio_attention_head_dim": 64,
    "audio_in_channels": 128,
    "audio_out_channels": 128,
    "audio_cross_attention_dim": 2048,
}
# nowhere in the file: the geometry of the VAEs of the LTX-2 family
_GEOMETRY: dict[str, Any] = {
    "vae_scale_factors": (8, 32, 32),
    "audio_scale_factor": 4,
    "audio_sampling_rate": 16000,
    "audio_hop_length": 160,
    "causal_offset": 1,
}


def load(build: Callable[[], M], path: Path, component: str, dtype: torch.dtype, device: torch.device) -> M:
    """``build()`` with the weights of one of ``mapping.COMPONENTS``; only its tensors are read.

    InputError when the file has a tensor that is not known, or a tensor is missing or of another shape.
    """

    def rename(stored: str) -> str | None:
        if stored in mapping.UNUSED:
            return None
        owner, name = mapping.diffusers_name(stored)
        return name if owner == component else None

    return weights.load(build, path.parent, dtype, device, file=path.name, rename=rename)


def _open(path: Path) -> tuple[Mapping[str, Any], dict[str, tuple[int, ...]]]:
    """The transformer's configuration and the shape of every tensor."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be read as safetensors: {str(error).splitlines()[0]}") from None
    try:
        config = json.loads(metadata["config"])["transformer"]
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f"{path}: no configuration of a transformer in its metadata; expected an official file"
        ) from None
    for key, value in _FIXED.items():
        if config.get(key) != value:
            raise bad_field(f"{path}: config.transformer", key, config.get(key), f"{value!r}, which is implemented")
    return config, shapes


def transformer_config(path: Path) -> TransformerConfig:
    """What ``transformer/config.json`` of the diffusers layout would say. InputError when it is not implemented."""
    config, shapes = _open(path)
    modulated, gated = config.get("cross_attention_adaln", False), config.get("apply_gated_attention", False)
    time, height, width = config.get("positional_embedding_max_pos", [20, 2048, 2048])
    return TransformerConfig(
        **{name: config.get(name, absent) for name, absent in _SAME.items()},
        **_GEOMETRY,
        caption_channels=_caption_channels(path, config),
        pos_embed_max_pos=time,
        base_height=height,
        base_width=width,
        audio_pos_embed_max_pos=config.get("audio_positional_embedding_max_pos", [20])[0],
        rope_theta=float(config.get("positional_embedding_theta", 10000.0)),
        cross_attn_timestep_scale_multiplier=config.get("av_ca_timestep_scale_multiplier", 1),
        gated_attn=gated,
        audio_gated_attn=gated,
        cross_attn_mod=modulated,
        audio_cross_attn_mod=modulated,
        use_prompt_embeddings="model.diffusion_model.caption_projection.linear_1.weight" in shapes,
        perturbed_attn=True,
    )


def connectors_config(path: Path) -> ConnectorsConfig:
    """What ``connectors/config.json`` of the diffusers layout would say. InputError when it is not implemented."""
    config, shapes = _open(path)
    width = _caption_channels(path, config)
    projection = "text_embedding_projection.{}aggregate_embed.weight".format
    shared = projection("") in shapes
    sizes: dict[str, Any] = {}
    for stream, prefix in (("video", ""), ("audio", "audio_")):
        registers = f"model.diffusion_model.{stream}_embeddings_connector.learnable_registers"
        if registers not in shapes or projection("" if shared else f"{stream}_") not in shapes:
            raise InputError(f"{path}: no connector of the {stream} stream; expected {registers!r} and its projection")
        sizes[f"{stream}_connector_num_learnable_registers"] = shapes[registers][0]
        sizes[f"{stream}_gated_attn"] = config.get("connector_apply_gated_attention", False)
        for name, absent in (("num_attention_heads", 30), ("attention_head_dim", 128), ("num_layers", 2)):
            value = config.get(f"{prefix}connector_{name}", config.get(f"connector_{name}", absent))
            sizes[f"{stream}_connector_{name}"] = value
        if not shared:
            sizes[f"{stream}_hidden_dim"] = shapes[projection(f"{stream}_")][0]
    features = shapes[projection("" if shared else "video_")][1]
    return ConnectorsConfig(
        **sizes,
        caption_channels=width,
        text_proj_in_factor=features // width,
        connector_rope_base_seq_len=config.get("connector_positional_embedding_max_pos", [1])[0],
        rope_theta=10000.0,
        per_modality_projections=not shared,
        proj_bias=not shared,
    )


def _caption_channels(path: Path, config: Mapping[str, Any]) -> int:
    value = config.get("caption_channels")
    if type(value) is not int or value <= 0:
        raise bad_field(f"{path}: config.transformer", "caption_channels", value, "the text encoder's width")
    return value
