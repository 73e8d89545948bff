"""Text connectors: hidden states of every text encoder layer to the text context of each stream.

Legend: B batch, T text tokens, D encoder width, L encoder layers, F features, R registers.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import nn

from conformance.errors import InputError, bad_field
from engine.layers.attention import Attention
from engine.layers.feedforward import FeedForward
from engine.layers.norm import fused_rms_norm
from engine.layers.rope import Rotary, sequence_rotary
from engine.models.ltx2.config import ConnectorsConfig
from engine.numerics import Numerics

_EPS = 1e-6


def range_norm(x_BTDL: torch.Tensor, valid_BT: torch.Tensor) -> torch.Tensor:
    """8 * (x - mean) / (max - min) of each layer over its valid tokens (LTX-2.0); pads become 0. -> [B,T,D*L].

    The count is a float32 denominator, so everything after the sum is float32 until the last rounding: in bf16
    the number of summed values would not be representable.
    """
    valid = valid_BT[:, :, None, None]
    count = (valid_BT.sum(-1) * x_BTDL.shape[2]).view(-1, 1, 1, 1)
    mean = x_BTDL.masked_fill(~valid, 0.0).sum(dim=(1, 2), keepdim=True) / (count + _EPS)
    low = x_BTDL.masked_fill(~valid, math.inf).amin(dim=(1, 2), keepdim=True)
    high = x_BTDL.masked_fill(~valid, -math.inf).amax(dim=(1, 2), keepdim=True)
    scaled = (x_BTDL - mean) / (high - low + _EPS) * 8
    return scaled.flatten(2).masked_fill(~valid_BT[:, :, None], 0.0).to(x_BTDL.dtype)


def token_norm(x_BTDL: torch.Tensor, valid_BT: torch.Tensor, numerics: Numerics) -> torch.Tensor:
    """x / rms over D of each token and layer (LTX-2.3); pads become 0. -> [B,T,D*L], x's dtype.

    In ``numerics.feature_rms_dtype``, every operation rounded.
    """
    work = x_BTDL.float() if numerics.feature_rms_dtype == "float32" else x_BTDL
    mean_square = torch.mean(work**2, dim=2, keepdim=True)
    normed = (work * torch.rsqrt(mean_square + _EPS)).to(x_BTDL.dtype).flatten(2)
    return torch.where(valid_BT[:, :, None], normed, torch.zeros_like(normed))


class ConnectorBlock(nn.Module):
    """Pre-norm self attention and feed-forward; parameter names are those of the diffusers layout."""

    def __init__(self, width: int, heads: int, head_dim: int, *, gated: bool) -> None:
        super().__init__()
        self.attn1 = Attention(width, width, heads, head_dim, gated=gated)
        self.ff = FeedForward(width)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None, rope: Rotary, numerics: Numerics) -> torch.Tensor:
        x = x + self.attn1(fused_rms_norm(x, _EPS), mask_BS=mask, query_rope=rope, numerics=numerics)
        return x + self.ff(fused_rms_norm(x, _EPS))


class Connector(nn.Module):
    """Bidirectional transformer over the features of one stream, pads replaced by learned registers."""

    def __init__(
        self, *, heads: int, head_dim: int, layers: int, registers: int, gated: bool, max_length: int, theta: float
    ) -> None:
        super().__init__()
        self.heads, self.width, self.max_length, self.theta = heads, heads * head_dim, max_length, theta
        self.learnable_registers = nn.Parameter(torch.empty(registers, self.width))
        self.transformer_blocks = nn.ModuleList(
            ConnectorBlock(self.width, heads, head_dim, gated=gated) for _ in range(layers)
        )

    def forward(self, x_BTF: torch.Tensor, valid_BT: torch.Tensor, numerics: Numerics) -> torch.Tensor:
        """[B,T,F] -> [B,T,F]; valid tokens move to the front, the rest are registers by absolute position."""
        length = x_BTF.shape[1]
        x = self._fill(x_BTF, valid_BT)
        rope = sequence_rotary(
            length,
            self.max_length,
            dim=self.width,
            heads=self.heads,
            theta=self.theta,
            numerics=numerics,
            device=x.device,
        )
        # every position is valid now; a mask of zeros only selects the masked attention kernel
        masked = numerics.connector_mask == "zeros"
        mask = torch.zeros(x.shape[:2], dtype=x.dtype, device=x.device) if masked else None
        for block in self.transformer_blocks:
            x = block(x, mask, rope, numerics)
        return fused_rms_norm(x, _EPS)

    def _fill(self, x_BTF: torch.Tensor, valid_BT: torch.Tensor) -> torch.Tensor:
        length, registers = x_BTF.shape[1], self.learnable_registers.shape[0]
        if length % registers:
            raise bad_field("connectors", "text_tokens", length, f"a multiple of the {registers} registers")
        order = torch.argsort(valid_BT.int(), dim=1, descending=True, stable=True)
        front = torch.gather(x_BTF, 1, order[:, :, None].expand_as(x_BTF))
        is_text = torch.arange(length, device=x_BTF.device) < valid_BT.sum(dim=1, keepdim=True)
        tiled = self.learnable_registers.to(x_BTF.dtype).repeat(length // registers, 1)
        return torch.where(is_text[:, :, None], front, tiled)


class LTX2Connectors(nn.Module):
    """Feature extraction (shared in LTX-2.0, one projection per stream in LTX-2.3) and both connectors."""

    def __init__(self, config: ConnectorsConfig) -> None:
        super().__init__()
        self.config = config
        features = config.caption_channels * config.text_proj_in_factor
        if config.per_modality_projections:
            self.video_text_proj_in = nn.Linear(features, config.video_hidden_dim, bias=config.proj_bias)
            self.audio_text_proj_in = nn.Linear(features, config.audio_hidden_dim, bias=config.proj_bias)
        else:
            self.text_proj_in = nn.Linear(features, config.caption_channels, bias=config.proj_bias)
        build = partial(Connector, max_length=config.connector_rope_base_seq_len, theta=config.rope_theta)
        self.video_connector = build(
            heads=config.video_connector_num_attention_heads,
            head_dim=config.video_connector_attention_head_dim,
            layers=config.video_connector_num_layers,
            registers=config.video_connector_num_learnable_registers,
            gated=config.video_gated_attn,
        )
        self.audio_connector = build(
            heads=config.audio_connector_num_attention_heads,
            head_dim=config.audio_connector_attention_head_dim,
            layers=config.audio_connector_num_layers,
            registers=config.audio_connector_num_learnable_registers,
            gated=config.audio_gated_attn,
        )

    def forward(
        self, embeds_BTE: torch.Tensor, mask_BT: torch.Tensor, numerics: Numerics
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Packed encoder states [B,T,D*L] (layer fastest) and token mask [B,T] -> video and audio context [B,T,F].

        InputError when the shapes do not fit the checkpoint or a row has no token.
        """
        width = self.config.caption_channels * self.config.text_proj_in_factor
        if embeds_BTE.ndim != 3 or embeds_BTE.shape[-1] != width:
            raise bad_field("connectors", "embeds", tuple(embeds_BTE.shape), f"a shape [B, T, {width}]")
        if mask_BT.shape != embeds_BTE.shape[:2]:
            raise bad_field("connectors", "mask", tuple(mask_BT.shape), f"the shape {tuple(embeds_BTE.shape[:2])}")
        valid = mask_BT.bool()
        if not bool(valid.any(dim=1).all()):
            raise InputError("connectors: 'mask' has a row without a token; expected at least one token per prompt")
        video, audio = self._features(embeds_BTE.unflatten(2, (self.config.caption_channels, -1)), valid, numerics)
        return self.video_connector(video, valid, numerics), self.audio_connector(audio, valid, numerics)

    def _features(
        self, x_BTDL: torch.Tensor, valid_BT: torch.Tensor, numerics: Numerics
    ) -> tuple[torch.Tensor, torch.Tensor]:
        config = self.config
        if not config.per_modality_projections:
            shared = self.text_proj_in(range_norm(x_BTDL, valid_BT))
            return shared, shared
        normed = token_norm(x_BTDL, valid_BT, numerics)
        video = normed * math.sqrt(config.video_hidden_dim / config.caption_channels)
        audio = normed * math.sqrt(config.audio_hidden_dim / config.caption_channels)
        return self.video_text_proj_in(video), self.audio_text_proj_in(audio)
