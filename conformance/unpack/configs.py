"""Configurations of the diffusers layout out of that of an official file: transformer, connectors, and the index.

Keys, and what an absent one stands for, are those of the configurators of ltx-core 1.0.0. What the file does not record
is the released family's. The keys written are those of diffusers 0.42.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from conformance.errors import InputError, bad_field
from conformance.unpack.fields import REQUIRED, Section

Shapes = Mapping[str, tuple[int, ...]]
Config = dict[str, Any]

# What the configurators demand of every transformer.
CHECKED: dict[str, Any] = {
    "dropout": 0.0,
    "attention_bias": True,
    "num_vector_embeds": None,
    "activation_fn": "gelu-approximate",
    "num_embeds_ada_norm": 1000,
    "use_linear_projection": False,
    "only_cross_attention": False,
    "cross_attention_norm": True,
    "double_self_attention": False,
    "upcast_attention": False,
    "standardization_norm": "rms_norm",
    "norm_elementwise_affine": False,
    "qk_norm": "rms_norm",
    "positional_embedding_type": "rope",
    "use_audio_video_cross_attention": True,
    "share_ff": False,
    "av_cross_ada_norm": True,
    "use_middle_indices_grid": True,
}
# What marks the text projections of LTX-2.3: all of these or none.
PROJECTED = {
    "caption_proj_before_connector": True,
    "caption_projection_first_linear": False,
    "caption_proj_input_norm": False,
    "caption_projection_second_linear": False,
}
_TEXT_WIDTH = 3840  # of the released text encoder, which the configurators assume
SCHEDULER: Config = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "num_train_timesteps": 1000,
    "shift": 1.0,
    "use_dynamic_shifting": True,
    "base_shift": 0.95,
    "max_shift": 2.05,
    "base_image_seq_len": 1024,
    "max_image_seq_len": 4096,
    "invert_sigmas": False,
    "shift_terminal": 0.1,
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    "time_shift_type": "exponential",
    "stochastic_sampling": False,
}
_GEOMETRY: Config = {
    "patch_size": 1,
    "patch_size_t": 1,
    "audio_patch_size": 1,
    "audio_patch_size_t": 1,
    "vae_scale_factors": [8, 32, 32],
    "audio_scale_factor": 4,
    "audio_sampling_rate": 16000,
    "audio_hop_length": 160,
    "causal_offset": 1,
}


def projected(config: Section) -> bool:
    """Whether text is projected for each stream before its connector, as in LTX-2.3. InputError for a half of it."""
    if not config.data.keys() & PROJECTED.keys():
        return False
    for name, value in PROJECTED.items():
        config.only(name, value)
    return True


def transformer(config: Section) -> Config:
    """``transformer/config.json``. InputError when it is not implemented.

    ``perturbed_attn`` is no part of the model: it lets diffusers do spatio-temporal guidance, and is on.
    """
    for name, value in CHECKED.items():
        config.only(name, value)
    for name, value in (("rope_type", "split"), ("frequencies_precision", "float64")):
        config.only(name, value)
    for name in ("ff_bias", "audio_ff_bias", "use_prompt_adaln_single"):  # of later models
        config.only(name, True, absent=True)
    time, height, width = config.integers("positional_embedding_max_pos", [20, 2048, 2048], count=3)
    gated, modulated = config.flag("apply_gated_attention", False), config.flag("cross_attention_adaln", False)
    counts = {
        "num_attention_heads": REQUIRED,
        "attention_head_dim": REQUIRED,
        "in_channels": 128,
        "out_channels": 128,
        "num_layers": 48,
        "cross_attention_dim": 4096,
        "timestep_scale_multiplier": 1000,
        "audio_num_attention_heads": REQUIRED,
        "audio_attention_head_dim": REQUIRED,
        "audio_in_channels": 128,
        "audio_out_channels": 128,
        "audio_cross_attention_dim": 2048,
    }
    return _GEOMETRY | {
        "_class_name": "LTX2VideoTransformer3DModel",
        **{name: config.integer(name, absent) for name, absent in counts.items()},
        "norm_eps": config.number("norm_eps", 1e-6),
        "caption_channels": text_width(config),
        "pos_embed_max_pos": time,
        "base_height": height,
        "base_width": width,
        "audio_pos_embed_max_pos": config.integers("audio_positional_embedding_max_pos", [20], count=1)[0],
        "rope_theta": config.number("positional_embedding_theta", 10000.0),
        "rope_double_precision": True,
        "rope_type": "split",
        "cross_attn_timestep_scale_multiplier": config.integer("av_ca_timestep_scale_multiplier", 1),
        "activation_fn": "gelu-approximate",
        "qk_norm": "rms_norm_across_heads",
        "norm_elementwise_affine": False,
        "attention_bias": True,
        "attention_out_bias": True,
        "ff_bias": True,
        "audio_ff_bias": True,
        "gated_attn": gated,
        "audio_gated_attn": gated,
        "cross_attn_mod": modulated,
        "audio_cross_attn_mod": modulated,
        "use_prompt_adaln_single": True,
        "use_prompt_embeddings": not projected(config),
        "use_keyframes_abs_pos_embedding": False,
        "perturbed_attn": True,
    }


def text_width(config: Section) -> int:
    """Width of the text encoder. LTX-2's configurator needs it, LTX-2.3's assumes the released one."""
    return config.integer("caption_channels", _TEXT_WIDTH if projected(config) else REQUIRED)


def connectors(config: Section, shapes: Shapes) -> Config:
    """``connectors/config.json``. shapes: of the tensors, under their official names: layers of the text encoder and
    learnable registers are recorded nowhere else. InputError when it is not implemented or such a tensor is missing."""
    width, separate = text_width(config), projected(config)
    prefix = "text_embedding_projection."
    features = _shape(shapes, f"{prefix}{'video_' if separate else ''}aggregate_embed.weight", config)[1]
    if features % width:
        raise bad_field(config.where, "caption_channels", width, f"a divisor of the {features} projected text features")
    sizes: Config = {}
    for stream, audio in (("video", ""), ("audio", "audio_")):
        registers = f"model.diffusion_model.{stream}_embeddings_connector.learnable_registers"
        sizes[f"{stream}_connector_num_learnable_registers"] = _shape(shapes, registers, config)[0]
        sizes[f"{stream}_gated_attn"] = config.flag("connector_apply_gated_attention", False)
        for name, absent in (("num_attention_heads", 30), ("attention_head_dim", 128), ("num_layers", 2)):
            shared = config.integer(f"connector_{name}", absent)
            sizes[f"{stream}_connector_{name}"] = config.integer(f"{audio}connector_{name}", shared)
        heads = config.integer(f"{audio}num_attention_heads", REQUIRED)
        sizes[f"{stream}_hidden_dim"] = heads * config.integer(f"{audio}attention_head_dim", REQUIRED)
    return sizes | {
        "_class_name": "LTX2TextConnectors",
        "caption_channels": width,
        "text_proj_in_factor": features // width,
        "connector_rope_base_seq_len": config.integers("connector_positional_embedding_max_pos", [1], count=1)[0],
        "rope_theta": 10000.0,
        "rope_double_precision": True,
        "rope_type": "split",
        "causal_temporal_positioning": False,
        "per_modality_projections": separate,
        "proj_bias": separate,
    }


def _shape(shapes: Shapes, name: str, config: Section) -> tuple[int, ...]:
    shape = shapes.get(name)
    if shape is None or len(shape) != 2:
        raise InputError(f"{config.where}: asks for tensor {name!r} [rows, columns]; found {shape}")
    return shape


def model_index(text_encoder: str, tokenizer: str, vocoder: str) -> Config:
    """``model_index.json``; the arguments are names of classes."""
    return {
        "_class_name": "LTX2Pipeline",
        "audio_vae": ["diffusers", "AutoencoderKLLTX2Audio"],
        "connectors": ["ltx2", "LTX2TextConnectors"],
        "duration_head": [None, None],
        "processor": [None, None],
        "prompt_enhancer": [None, None],
        "scheduler": ["diffusers", SCHEDULER["_class_name"]],
        "text_encoder": ["transformers", text_encoder],
        "tokenizer": ["transformers", tokenizer],
        "transformer": ["diffusers", "LTX2VideoTransformer3DModel"],
        "vae": ["diffusers", "AutoencoderKLLTX2Video"],
        "vocoder": ["ltx2", vocoder],
    }
