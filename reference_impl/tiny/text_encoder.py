"""Gemma3 with 7 layers, so that sliding-window and full attention both occur, and prompts longer than the window."""

from __future__ import annotations

from typing import Any

from transformers import Gemma3Config, Gemma3ForConditionalGeneration, Gemma3TextConfig, SiglipVisionConfig

from reference_impl.tiny import tokenizer
from reference_impl.tiny.fill import fill

HIDDEN = 64
LAYERS = 7

TEXT: dict[str, Any] = {
    "vocab_size": tokenizer.VOCABULARY,
    "hidden_size": HIDDEN,
    "intermediate_size": 2 * HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "query_pre_attn_scalar": 16,
    "sliding_window": 8,
    "max_position_embeddings": tokenizer.MAX_LENGTH,
    "pad_token_id": tokenizer.SPECIAL.index("<pad>"),
    "eos_token_id": tokenizer.SPECIAL.index("<eos>"),
    "bos_token_id": tokenizer.SPECIAL.index("<bos>"),
    "rope_parameters": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1_000_000.0},
    },
}
VISION: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
    "vision_use_head": False,
}


def build(model: str) -> Gemma3ForConditionalGeneration:
    """The filled text encoder of ``ltx-2`` or ``ltx-2.3``, bfloat16. Its vision tower is never run."""
    boi, eoi, image = (tokenizer.VOCABULARY - 3 + i for i in range(3))
    config = Gemma3Config(
        text_config=Gemma3TextConfig(**TEXT),
        vision_config=SiglipVisionConfig(**VISION),
        mm_tokens_per_image=4,
        boi_token_index=boi,
        eoi_token_index=eoi,
        image_token_index=image,
    )
    encoder = Gemma3ForConditionalGeneration(config)
    fill(encoder, f"{model}/text_encoder")
    return encoder
