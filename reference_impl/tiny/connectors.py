"""The text connectors: one shared projection and 2 layers for LTX-2, one projection a stream and 3 layers for LTX-2.3.

Padded prompts are a multiple of ``REGISTERS`` long.
"""

from __future__ import annotations

from typing import Any

from diffusers.pipelines.ltx2.connectors import LTX2TextConnectors

from reference_impl.tiny import text_encoder, transformer
from reference_impl.tiny.fill import fill

REGISTERS = 16


def _stream(name: str, heads: int, head_dim: int, layers: int, gated: bool) -> dict[str, Any]:
    return {
        f"{name}_connector_num_attention_heads": heads,
        f"{name}_connector_attention_head_dim": head_dim,
        f"{name}_connector_num_layers": layers,
        f"{name}_connector_num_learnable_registers": REGISTERS,
        f"{name}_gated_attn": gated,
    }


_COMMON: dict[str, Any] = {
    "caption_channels": text_encoder.HIDDEN,
    "text_proj_in_factor": text_encoder.LAYERS + 1,
    "connector_rope_base_seq_len": 4096,
    "rope_theta": 10000.0,
    "rope_double_precision": True,
    "causal_temporal_positioning": False,
    "rope_type": "split",
    "video_hidden_dim": transformer.DIM,
    "audio_hidden_dim": transformer.AUDIO_DIM,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "ltx-2": _COMMON
    | _stream("video", 4, text_encoder.HIDDEN // 4, 2, False)
    | _stream("audio", 4, text_encoder.HIDDEN // 4, 2, False)
    | {"per_modality_projections": False, "proj_bias": False},
    "ltx-2.3": _COMMON
    | _stream("video", transformer.HEADS, transformer.HEAD_DIM, 3, True)
    | _stream("audio", transformer.HEADS, transformer.AUDIO_HEAD_DIM, 3, True)
    | {"per_modality_projections": True, "proj_bias": True},
}


def build(model: str) -> LTX2TextConnectors:
    """The filled connectors of ``ltx-2`` or ``ltx-2.3``, bfloat16."""
    connectors = LTX2TextConnectors(**CONFIGS[model])
    fill(connectors, f"{model}/connectors")
    return connectors
