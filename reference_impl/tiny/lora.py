"""A distilled LoRA for the tiny transformers: rank 4 on every attention and feed-forward layer of both streams.

It distils nothing; it moves the transformer's output as much as a strong adapter does. Names are those of released
LoRAs.
"""

from __future__ import annotations

import re

import torch
from torch import nn

from reference_impl.tiny.fill import fan_in, normal

FILE = "tiny-distilled-lora.safetensors"
RANK = 4
# standard deviation of strength * B@A at strength 1, over that of the weight
_SHARE = 0.2
_LAYERS = re.compile(r"transformer_blocks\.\d+\.(?:\w*attn\d?\.(?:to_[qkv]|to_out\.0)|\w*ff\.net\.(?:0\.proj|2))")


def build(transformer: nn.Module, model: str) -> dict[str, torch.Tensor]:
    """Factors A [R,I] and B [O,R] of each layer by official name, bfloat16, from the shapes of ``transformer``."""
    factors = {}
    for name, module in transformer.named_modules():
        if _LAYERS.fullmatch(name):
            assert isinstance(module, nn.Linear)
            # these layers are called the same in the official layout
            layer, seed = f"diffusion_model.{name}", f"{model}/lora/{name}"
            std = fan_in(module) ** -0.5
            factors[f"{layer}.lora_A.weight"] = normal(f"{seed}.A", (RANK, module.in_features), std)
            factors[f"{layer}.lora_B.weight"] = normal(f"{seed}.B", (module.out_features, RANK), _SHARE * RANK**-0.5)
    return factors
