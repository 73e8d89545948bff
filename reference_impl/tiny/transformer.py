"""The DiT: 3 blocks, 4 heads, 128 wide for video and 64 for audio.

Ratios, switches and multipliers are those of the released configurations (diffusers 0.42.1,
``scripts/convert_ltx2_to_diffusers.py``).
"""

from __future__ import annotations

from typing import Any

from diffusers.models.transformers.transformer_ltx2 import LTX2VideoTransformer3DModel

from reference_impl.tiny import text_encoder
from reference_impl.tiny.fill import fill

HEADS = 4
HEAD_DIM, AUDIO_HEAD_DIM = 32, 16
DIM, AUDIO_DIM = HEADS * HEAD_DIM, HEADS * AUDIO_HEAD_DIM
LAYERS = 3

_COMMON: dict[str, Any] = {
    "in_channels": 128,
    "out_channels": 128,
    "patch_size": 1,
    "patch_size_t": 1,
    "num_attention_heads": HEADS,
    "attention_head_dim": HEAD_DIM,
    "cross_attention_dim": DIM,
    "vae_scale_factors": (8, 32, 32),
    "pos_embed_max_pos": 20,
    "base_height": 2048,
    "base_width": 2048,
    "audio_in_channels": 128,
    "audio_out_channels": 128,
    "audio_patch_size": 1,
    "audio_patch_size_t": 1,
    "audio_num_attention_heads": HEADS,
    "audio_attention_head_dim": AUDIO_HEAD_DIM,
    "audio_cross_attention_dim": AUDIO_DIM,
    "audio_scale_factor": 4,
    "audio_pos_embed_max_pos": 20,
    "audio_sampling_rate": 16000,
    "audio_hop_length": 160,
    "num_layers": LAYERS,
    "activation_fn": "gelu-approximate",
    "qk_norm": "rms_norm_across_heads",
    "norm_elementwise_affine": False,
    "norm_eps": 1e-6,
    "caption_channels": text_encoder.HIDDEN,
    "attention_bias": True,
    "attention_out_bias": True,
    "rope_theta": 10000.0,
    "rope_double_precision": True,
    "causal_offset": 1,
    "timestep_scale_multiplier": 1000,
    "cross_attn_timestep_scale_multiplier": 1000,
    "rope_type": "split",
    "perturbed_attn": True,
}
_SWITCHES = ("gated_attn", "cross_attn_mod", "audio_gated_attn", "audio_cross_attn_mod")
CONFIGS: dict[str, dict[str, Any]] = {
    "ltx-2": _COMMON | dict.fromkeys(_SWITCHES, False) | {"use_prompt_embeddings": True},
    "ltx-2.3": _COMMON | dict.fromkeys(_SWITCHES, True) | {"use_prompt_embeddings": False},
}


def build(model: str) -> LTX2VideoTransformer3DModel:
    """The filled DiT of ``ltx-2`` or ``ltx-2.3``, bfloat16."""
    transformer = LTX2VideoTransformer3DModel(**CONFIGS[model])
    fill(transformer, f"{model}/transformer")
    return transformer
