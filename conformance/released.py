"""Which of the released models a checkpoint's configurations are those of.

Values are those of diffusers' ``scripts/convert_ltx2_to_diffusers.py`` (58eb52c, 2026-08), which made the released
folders. The weights may be others: a fine-tuned or distilled model has the same configurations.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from conformance.jsonio import read_json

Configs = dict[str, dict[str, Any]]
_GENERATOR: dict[str, Any] = {
    "in_channels": 128,
    "out_channels": 2,
    "resnet_kernel_sizes": [3, 7, 11],
    "resnet_dilations": [[1, 3, 5], [1, 3, 5], [1, 3, 5]],
    "leaky_relu_negative_slope": 0.1,
}
_SNAKE = {"act_fn": "snakebeta", "antialias": True, "antialias_ratio": 2, "antialias_kernel_size": 12}
_SNAKE |= {"final_act_fn": None, "final_bias": False}
_LTX2: Configs = {
    "transformer": {
        "_class_name": "LTX2VideoTransformer3DModel",
        "in_channels": 128,
        "out_channels": 128,
        "patch_size": 1,
        "patch_size_t": 1,
        "num_attention_heads": 32,
        "attention_head_dim": 128,
        "cross_attention_dim": 4096,
        "vae_scale_factors": [8, 32, 32],
        "pos_embed_max_pos": 20,
        "base_height": 2048,
        "base_width": 2048,
        "gated_attn": False,
        "cross_attn_mod": False,
        "audio_in_channels": 128,
        "audio_out_channels": 128,
        "audio_patch_size": 1,
        "audio_patch_size_t": 1,
        "audio_num_attention_heads": 32,
        "audio_attention_head_dim": 64,
        "audio_cross_attention_dim": 2048,
        "audio_scale_factor": 4,
        "audio_pos_embed_max_pos": 20,
        "audio_sampling_rate": 16000,
        "audio_hop_length": 160,
        "audio_gated_attn": False,
        "audio_cross_attn_mod": False,
        "num_layers": 48,
        "activation_fn": "gelu-approximate",
        "qk_norm": "rms_norm_across_heads",
        "norm_elementwise_affine": False,
        "norm_eps": 1e-6,
        "caption_channels": 3840,
        "attention_bias": True,
        "attention_out_bias": True,
        "rope_theta": 10000.0,
        "rope_double_precision": True,
        "causal_offset": 1,
        "timestep_scale_multiplier": 1000,
        "cross_attn_timestep_scale_multiplier": 1000,
        "rope_type": "split",
        "use_prompt_embeddings": True,
        "ff_bias": True,
        "audio_ff_bias": True,
        "use_prompt_adaln_single": True,
        "use_keyframes_abs_pos_embedding": False,
    },
    "connectors": {
        "_class_name": "LTX2TextConnectors",
        "caption_channels": 3840,
        "text_proj_in_factor": 49,
        "video_connector_num_attention_heads": 30,
        "video_connector_attention_head_dim": 128,
        "video_connector_num_layers": 2,
        "video_connector_num_learnable_registers": 128,
        "video_gated_attn": False,
        "audio_connector_num_attention_heads": 30,
        "audio_connector_attention_head_dim": 128,
        "audio_connector_num_layers": 2,
        "audio_connector_num_learnable_registers": 128,
        "audio_gated_attn": False,
        "connector_rope_base_seq_len": 4096,
        "rope_theta": 10000.0,
        "rope_double_precision": True,
        "causal_temporal_positioning": False,
        "rope_type": "split",
        "per_modality_projections": False,
        "video_hidden_dim": 4096,
        "audio_hidden_dim": 2048,
        "proj_bias": False,
    },
    "vae": {
        "_class_name": "AutoencoderKLLTX2Video",
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": 128,
        "block_out_channels": [256, 512, 1024, 2048],
        "decoder_block_out_channels": [256, 512, 1024],
        "layers_per_block": [4, 6, 6, 2, 2],
        "decoder_layers_per_block": [5, 5, 5, 5],
        "spatio_temporal_scaling": [True] * 4,
        "decoder_spatio_temporal_scaling": [True] * 3,
        "decoder_inject_noise": [False] * 4,
        "downsample_type": ["spatial", "temporal", "spatiotemporal", "spatiotemporal"],
        "upsample_type": ["spatiotemporal"] * 3,
        "upsample_residual": [True] * 3,
        "upsample_factor": [2, 2, 2],
        "timestep_conditioning": False,
        "patch_size": 4,
        "patch_size_t": 1,
        "scaling_factor": 1.0,
        "encoder_causal": True,
        "decoder_causal": False,
        "encoder_spatial_padding_mode": "zeros",
        "decoder_spatial_padding_mode": "reflect",
        "spatial_compression_ratio": 32,
        "temporal_compression_ratio": 8,
    },
    "audio_vae": {
        "_class_name": "AutoencoderKLLTX2Audio",
        "base_channels": 128,
        "output_channels": 2,
        "ch_mult": [1, 2, 4],
        "num_res_blocks": 2,
        "attn_resolutions": None,
        "in_channels": 2,
        "latent_channels": 8,
        "norm_type": "pixel",
        "causality_axis": "height",
        "dropout": 0.0,
        "mid_block_add_attention": False,
        "sample_rate": 16000,
        "mel_hop_length": 160,
        "is_causal": True,
        "mel_bins": 64,
        "double_z": True,
    },
    "vocoder": _GENERATOR
    | {
        "_class_name": "LTX2Vocoder",
        "hidden_channels": 1024,
        "upsample_kernel_sizes": [16, 15, 8, 4, 4],
        "upsample_factors": [6, 5, 2, 2, 2],
        "act_fn": "leaky_relu",
        "antialias": False,
        "final_act_fn": "tanh",
        "final_bias": True,
        "output_sampling_rate": 24000,
    },
}
_LTX23: Configs = {
    "transformer": _LTX2["transformer"]
    | {"gated_attn": True, "cross_attn_mod": True, "audio_gated_attn": True, "audio_cross_attn_mod": True}
    | {"use_prompt_embeddings": False},
    "connectors": _LTX2["connectors"]
    | {"video_connector_num_attention_heads": 32, "audio_connector_num_attention_heads": 32}
    | {"audio_connector_attention_head_dim": 64, "video_connector_num_layers": 8, "audio_connector_num_layers": 8}
    | {"video_gated_attn": True, "audio_gated_attn": True, "per_modality_projections": True, "proj_bias": True},
    "vae": _LTX2["vae"]
    | {
        "block_out_channels": [256, 512, 1024, 1024],
        "decoder_block_out_channels": [256, 512, 512, 1024],
        "layers_per_block": [4, 6, 4, 2, 2],
        "decoder_layers_per_block": [4, 6, 4, 2, 2],
        "decoder_spatio_temporal_scaling": [True] * 4,
        "decoder_inject_noise": [False] * 5,
        "upsample_type": ["spatiotemporal", "spatiotemporal", "temporal", "spatial"],
        "upsample_residual": [False] * 4,
        "upsample_factor": [2, 2, 1, 2],
        "decoder_spatial_padding_mode": "zeros",
    },
    "audio_vae": _LTX2["audio_vae"],
    "vocoder": _GENERATOR
    | _SNAKE
    | {f"bwe_{name}": value for name, value in (_GENERATOR | _SNAKE).items()}
    | {
        "_class_name": "LTX2VocoderWithBWE",
        "hidden_channels": 1536,
        "upsample_kernel_sizes": [11, 4, 4, 4, 4, 4],
        "upsample_factors": [5, 2, 2, 2, 2, 2],
        "bwe_hidden_channels": 512,
        "bwe_upsample_kernel_sizes": [12, 11, 4, 4, 4],
        "bwe_upsample_factors": [6, 5, 2, 2, 2],
        "filter_length": 512,
        "hop_length": 80,
        "window_length": 512,
        "num_mel_channels": 64,
        "input_sampling_rate": 16000,
        "output_sampling_rate": 48000,
    },
}


def describe(folder: Path) -> str:
    """``LTX-2 (released)``, ``LTX-2.3 (released)``, or ``another configuration of ...`` with the first difference.

    A key that is absent is taken for LTX-2's: folders of that time lack those that came later.
    """
    found = {name: read_json(folder / name / "config.json") for name in _LTX2}
    modulated = found["transformer"].get("cross_attn_mod", False)
    name, expected = ("LTX-2.3", _LTX23) if modulated else ("LTX-2", _LTX2)
    difference = next(_differences(found, expected), None)
    if difference is None:
        return f"{name} (released)"
    return f"another configuration of the {name.lower()} architecture ({difference})"


def _differences(found: Configs, expected: Configs) -> Iterator[str]:
    for component, values in expected.items():
        for key, value in values.items():
            mine = found[component].get(key, _LTX2[component].get(key))
            if mine != value:
                yield f"{component}.{key} is {mine!r}, released {value!r}"
