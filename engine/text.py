"""The text encoder of a checkpoint: prompts to the hidden states of all layers.

Legend: B prompts, T tokens, D encoder width, L encoder layers + 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from conformance.errors import InputError
from engine.models.gemma3 import weights
from engine.models.gemma3.model import Gemma3TextModel
from engine.models.gemma3.tokenizer import PromptTokenizer


@dataclass(frozen=True, kw_only=True)
class TextEncoder:
    """A tokenizer and the model its ids go into."""

    tokenizer: PromptTokenizer
    model: Gemma3TextModel

    @classmethod
    def load(cls, checkpoint: Path, dtype: torch.dtype, device: torch.device) -> TextEncoder:
        """From ``tokenizer/`` and ``text_encoder/``. InputError when they cannot be used or do not fit together."""
        tokenizer = PromptTokenizer.load(checkpoint / "tokenizer")
        model = weights.load(checkpoint / "text_encoder", dtype, device)
        if tokenizer.vocab_size > model.config.vocab_size:
            sizes = f"{tokenizer.vocab_size} tokens, the text encoder embeds {model.config.vocab_size}"
            raise InputError(f"{checkpoint}: the tokenizer has {sizes}")
        return cls(tokenizer=tokenizer, model=model)

    def encode(self, prompts: Sequence[str], length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """One call of the model: states [B,T,D*L] in its dtype and mask [B,T] int64, T = ``length``.

        Layers are the fast index of the last axis. Both are on the model's device.
        """
        device = self.model.embed_tokens.weight.device
        ids_BT, mask_BT = (tensor.to(device) for tensor in self.tokenizer(prompts, length))
        return self.model(ids_BT, mask_BT).flatten(2), mask_BT
