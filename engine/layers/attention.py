"""Multi-head attention of the LTX-2 family. Legend: B batch, T queries, S keys, D inner width, H heads, d head dim."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from engine.backends import attend
from engine.layers.norm import QKNorm
from engine.layers.rope import Rotary
from engine.numerics import Numerics

Kernel = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None, str], torch.Tensor]


class HeadGates(nn.Module):
    """2*sigmoid(logits) [B,T,H], so that a zero logit is 1."""

    def forward(self, logits_BTH: torch.Tensor) -> torch.Tensor:
        return 2.0 * torch.sigmoid(logits_BTH)


class Attention(nn.Module):
    """softmax(q k^T / sqrt(d)) v with q and k RMS-normalised over all heads at once, and optional head gates.

    query_dim and context_dim are the widths of the two inputs; ``heads * head_dim`` is the inner width. With
    ``gated`` each head is scaled by 2*sigmoid of a logit taken from the query input.
    Parameter names are those of the diffusers layout. kernel: what mixes the values instead of ``backends.attend``,
    with its arguments; None for that itself.
    """

    def __init__(
        self, query_dim: int, context_dim: int, heads: int, head_dim: int, *, gated: bool, eps: float = 1e-6
    ) -> None:
        super().__init__()
        inner = heads * head_dim
        self.heads = heads
        self.kernel: Kernel | None = None
        self.to_q = nn.Linear(query_dim, inner)
        self.to_k = nn.Linear(context_dim, inner)
        self.to_v = nn.Linear(context_dim, inner)
        self.norm_q = QKNorm(inner, eps=eps)
        self.norm_k = QKNorm(inner, eps=eps)
        self.to_out = nn.ModuleList([nn.Linear(inner, query_dim)])
        self.to_gate_logits = nn.Linear(query_dim, heads) if gated else None
        self.head_gates = HeadGates()

    def forward(
        self,
        x_BTQ: torch.Tensor,
        context_BSC: torch.Tensor | None = None,
        *,
        numerics: Numerics,
        mask_BS: torch.Tensor | None = None,
        query_rope: Rotary | None = None,
        key_rope: Rotary | None = None,
        values_only: bool = False,
    ) -> torch.Tensor:
        """[B,T,query_dim] -> [B,T,query_dim]; self attention when there is no context.

        mask_BS: additive, [B,S]. key_rope: None means query_rope. values_only: the perturbation of spatio-temporal
        guidance, where attention passes its values through, or nothing at all (self attention only).
        """
        if values_only and numerics.stg == "zeros":
            return torch.zeros_like(x_BTQ)
        context = x_BTQ if context_BSC is None else context_BSC
        value_BSD = self.to_v(context)
        if values_only:
            mixed_BTHd = self._heads(value_BSD)
        else:
            query = self._rotate(self.norm_q(self.to_q(x_BTQ), numerics), query_rope)
            key = self._rotate(self.norm_k(self.to_k(context), numerics), key_rope or query_rope)
            mix = self.kernel or attend
            mixed_BTHd = mix(query, key, self._heads(value_BSD), mask_BS, numerics.attention)
        if self.to_gate_logits is not None:
            mixed_BTHd = mixed_BTHd * self.head_gates(self.to_gate_logits(x_BTQ)).unsqueeze(-1)
        return self.to_out[0](mixed_BTHd.flatten(2))

    def _heads(self, x_BTD: torch.Tensor) -> torch.Tensor:
        return x_BTD.unflatten(2, (self.heads, -1))

    def _rotate(self, x_BTD: torch.Tensor, rope: Rotary | None) -> torch.Tensor:
        return self._heads(x_BTD) if rope is None else rope.apply(x_BTD)
