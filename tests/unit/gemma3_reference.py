"""Gemma3 text encoders of any size as transformers has them, and the same weights in the engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import Gemma3Config, Gemma3ForConditionalGeneration, Gemma3TextConfig, SiglipVisionConfig

from engine.models.gemma3 import weights
from engine.models.gemma3.model import Gemma3TextModel
from reference_impl.diffusers_load import realigned
from reference_impl.tiny import text_encoder
from reference_impl.tiny.fill import fill

CPU = torch.device("cpu")
# width 60: sqrt(60) is no bfloat16 number; window 5, a pattern of its own, an uneven scale, 3 heads a key head
ODD: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 60,
    "intermediate_size": 84,
    "num_hidden_layers": 8,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 10,
    "query_pre_attn_scalar": 14,
    "sliding_window": 5,
    "sliding_window_pattern": 3,
    "rope_parameters": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 70.0},
        "full_attention": {"rope_type": "linear", "factor": 3.0, "rope_theta": 9000.0},
    },
}


def save(folder: Path, **changes: Any) -> Path:
    """A seeded random encoder with the tiny sizes, or others, in ``folder``, bfloat16."""
    text = Gemma3TextConfig(**(text_encoder.TEXT | changes))
    config = Gemma3Config(
        text_config=text,
        vision_config=SiglipVisionConfig(**text_encoder.VISION),
        mm_tokens_per_image=4,
        **dict(zip(("boi_token_index", "eoi_token_index", "image_token_index"), (47, 48, 49), strict=True)),
    )
    encoder = Gemma3ForConditionalGeneration(config)
    fill(encoder, "test")
    encoder.save_pretrained(folder)
    return folder


def reference(folder: Path, dtype: torch.dtype) -> Any:
    """The encoder of transformers, with the attention that the pipelines take by default."""
    model = Gemma3ForConditionalGeneration.from_pretrained(folder, dtype=dtype, local_files_only=True)
    assert model.config._attn_implementation == "sdpa"
    return realigned(model).eval()


def engine(folder: Path, dtype: torch.dtype) -> Gemma3TextModel:
    return weights.load(folder, dtype, CPU)


def batch(lengths: tuple[int, ...], total: int, vocabulary: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Left-padded random ids [B,T] and their mask; id 0 is padding, 2 starts every row."""
    generator = torch.Generator().manual_seed(11)
    ids = torch.randint(3, vocabulary, (len(lengths), total), generator=generator)
    index = torch.arange(total)
    starts = torch.tensor([total - length for length in lengths])[:, None]
    ids = torch.where(index == starts, 2, torch.where(index < starts, 0, ids))
    return ids, (index >= starts).long()


@torch.inference_mode()
def hidden_states(model: Any, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Those of transformers, stacked on a last axis."""
    out = model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
    return torch.stack(out.hidden_states, dim=-1)
