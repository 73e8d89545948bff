"""Gemma3 text model (Gemma Team 2025, arXiv:2503.19786) as an encoder: the hidden states of all layers.

Rounding follows transformers 5.23 with its ``sdpa`` attention. Module names are those of its checkpoints.
Legend: B prompts, T tokens, D width, L layers + 1, H query heads, K key heads, d head dim.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from engine.layers.norm import rms_norm
from engine.models.gemma3.config import Gemma3Config
from engine.models.gemma3.rope import RotaryTable, rotate

Rows = tuple[torch.Tensor, torch.Tensor]


class ScaledRMSNorm(nn.Module):
    """RMS norm times (1 + weight) over the last axis, all in float32, rounded once to the input's dtype."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.zeros(dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (rms_norm(x.float(), self.eps) * (1.0 + self.weight.float())).to(x.dtype)


def visible(mask_BT: torch.Tensor, window: int | None) -> torch.Tensor | None:
    """Which key a query sees, [B,1,T,T] bool: not later, valid, and less than ``window`` tokens back.

    None where that is plain causal order. Attention then takes its causal kernel instead of the masked one, as
    in transformers. Queries before the first token see nothing; their values are whatever attention makes of it.
    """
    length = mask_BT.shape[1]
    if bool(mask_BT.all()) and (window is None or length < window):
        return None
    key = torch.arange(length, device=mask_BT.device)
    query = key[:, None]
    seen_TT = key <= query
    if window is not None:
        seen_TT = seen_TT & (key > query - window)
    return seen_TT & mask_BT.bool()[:, None, None, :]


class Attention(nn.Module):
    """Grouped-query attention with q and k normalised per head. Head counts follow from the projections' widths."""

    def __init__(self, config: Gemma3Config) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.scale = config.query_pre_attn_scalar**-0.5
        query = config.num_attention_heads * config.head_dim
        key = config.num_key_value_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, query, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, key, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, key, bias=False)
        self.o_proj = nn.Linear(query, config.hidden_size, bias=False)
        self.q_norm = ScaledRMSNorm(config.head_dim, config.rms_norm_eps)
        self.k_norm = ScaledRMSNorm(config.head_dim, config.rms_norm_eps)

    def _heads(self, x_BTD: torch.Tensor) -> torch.Tensor:
        return x_BTD.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

    def forward(self, x_BTD: torch.Tensor, rows: Rows, seen_B1TT: torch.Tensor | None) -> torch.Tensor:
        """[B,T,D] -> [B,T,D]; rows: cos and sin [T,d]; seen: see ``visible``."""
        q_BHTd = rotate(self.q_norm(self._heads(self.q_proj(x_BTD))), *rows)
        k_BKTd = rotate(self.k_norm(self._heads(self.k_proj(x_BTD))), *rows)
        v_BKTd = self._heads(self.v_proj(x_BTD))
        if seen_B1TT is not None:  # a mask and shared heads together leave CUDA only its slowest kernel
            group = q_BHTd.shape[1] // k_BKTd.shape[1]
            k_BKTd, v_BKTd = (x.repeat_interleave(group, dim=1) for x in (k_BKTd, v_BKTd))
        out_BHTd = functional.scaled_dot_product_attention(
            q_BHTd,
            k_BKTd,
            v_BKTd,
            attn_mask=seen_B1TT,
            is_causal=seen_B1TT is None,
            scale=self.scale,
            enable_gqa=seen_B1TT is None,
        )
        return self.o_proj(out_BHTd.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """down(gelu_tanh(gate(x)) * up(x)) (Shazeer 2020, arXiv:2002.05202)."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(dim, hidden, bias=False)
        self.up_proj = nn.Linear(dim, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(functional.gelu(self.gate_proj(x), approximate="tanh") * self.up_proj(x))


class Layer(nn.Module):
    """Attention and MLP, each normalised before and after, inside the residual."""

    def __init__(self, config: Gemma3Config, *, sliding: bool) -> None:
        super().__init__()
        self.sliding = sliding
        self.self_attn = Attention(config)
        self.mlp = MLP(config.hidden_size, config.intermediate_size)
        self.input_layernorm = ScaledRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = ScaledRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.pre_feedforward_layernorm = ScaledRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_feedforward_layernorm = ScaledRMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x_BTD: torch.Tensor, rows: Rows, seen_B1TT: torch.Tensor | None) -> torch.Tensor:
        attended = self.self_attn(self.input_layernorm(x_BTD), rows, seen_B1TT)
        x_BTD = x_BTD + self.post_attention_layernorm(attended)
        return x_BTD + self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(x_BTD)))


class Gemma3TextModel(nn.Module):
    """Token ids to hidden states."""

    def __init__(self, config: Gemma3Config) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList([Layer(config, sliding=sliding) for sliding in config.sliding])
        self.norm = ScaledRMSNorm(config.hidden_size, config.rms_norm_eps)
        self._sliding_rope = RotaryTable(config.sliding_rope, config.head_dim)
        self._full_rope = RotaryTable(config.full_rope, config.head_dim)

    def forward(self, ids_BT: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
        """Ids and mask (1 for a token, 0 for padding) [B,T] int64 -> states [B,T,D,L] in the weights' dtype.

        States are the scaled embeddings, the outputs of all layers but the last, and the normalised output of
        the last. A token's position is its index in the padded sequence.
        """
        dtype = self.embed_tokens.weight.dtype
        positions_T = torch.arange(ids_BT.shape[1], device=ids_BT.device)
        sliding = self._sliding_rope.lookup(positions_T, dtype), visible(mask_BT, self.config.sliding_window)
        full = self._full_rope.lookup(positions_T, dtype), visible(mask_BT, None)
        # the scale is a number of the weights' dtype: sqrt(3840) is 62 in bfloat16
        scale = torch.tensor(self.config.hidden_size**0.5, dtype=dtype, device=ids_BT.device)
        states = [self.embed_tokens(ids_BT) * scale]
        for layer in self.layers:
            states.append(layer(states[-1], *(sliding if layer.sliding else full)))
        states[-1] = self.norm(states[-1])
        return torch.stack(states, dim=-1)
