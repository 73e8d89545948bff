"""One block of the LTX-2 DiT: video and audio streams with self, text, cross-modal attention and feed-forward.

Legend: B batch, T tokens of a stream, W width of a stream, S text tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from engine.layers.attention import Attention
from engine.layers.embeddings import modulation
from engine.layers.feedforward import FeedForward
from engine.layers.norm import block_norm
from engine.layers.rope import Rotary
from engine.models.ltx2.config import TransformerConfig
from engine.numerics import Numerics


@dataclass(frozen=True, kw_only=True)
class Stream:
    """What every block reads of one modality: text [B,S,W], adaLN head outputs [B,T|1,k*W], rotary tables.

    numerics: of every attention whose queries are of this modality.
    """

    text: torch.Tensor
    ada: torch.Tensor
    ada_prompt: torch.Tensor | None
    ada_cross: torch.Tensor
    ada_cross_gate: torch.Tensor
    rope: Rotary
    cross_rope: Rotary
    numerics: Numerics


def _modulate(x: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return x * (1 + scale) + shift


class Block(nn.Module):
    """Parameter and submodule names are those of the diffusers layout.

    Rows of ``scale_shift_table``: shift, scale, gate of self attention; the same of the feed-forward; in LTX-2.3
    the same of text attention. Rows of the ``a2v`` tables: scale, shift for audio-to-video, scale, shift for
    video-to-audio, gate. Rows of the prompt tables: shift, scale.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        video, audio, heads = config.width, config.audio_width, config.num_attention_heads
        video_dim, audio_dim = config.attention_head_dim, config.audio_attention_head_dim
        gated, audio_gated = config.gated_attn, config.audio_gated_attn
        self.eps, self.text_modulated = config.norm_eps, config.cross_attn_mod
        self.attn1 = Attention(video, video, heads, video_dim, gated=gated)
        self.audio_attn1 = Attention(audio, audio, heads, audio_dim, gated=audio_gated)
        self.attn2 = Attention(video, video, heads, video_dim, gated=gated)
        self.audio_attn2 = Attention(audio, audio, heads, audio_dim, gated=audio_gated)
        self.audio_to_video_attn = Attention(video, audio, heads, audio_dim, gated=gated)
        self.video_to_audio_attn = Attention(audio, video, heads, audio_dim, gated=audio_gated)
        self.ff = FeedForward(video)
        self.audio_ff = FeedForward(audio)
        rows = 9 if self.text_modulated else 6
        self.scale_shift_table = nn.Parameter(torch.empty(rows, video))
        self.audio_scale_shift_table = nn.Parameter(torch.empty(rows, audio))
        if self.text_modulated:
            self.prompt_scale_shift_table = nn.Parameter(torch.empty(2, video))
            self.audio_prompt_scale_shift_table = nn.Parameter(torch.empty(2, audio))
        self.video_a2v_cross_attn_scale_shift_table = nn.Parameter(torch.empty(5, video))
        self.audio_a2v_cross_attn_scale_shift_table = nn.Parameter(torch.empty(5, audio))

    def forward(
        self,
        video: torch.Tensor,
        audio: torch.Tensor,
        video_stream: Stream,
        audio_stream: Stream,
        text_mask: torch.Tensor | None,
        perturbed: bool,
        isolated: bool,
        skip_v2a: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """States [B,T,W] of both streams to their successors.

        text_mask: additive [B,S]. perturbed: self attention passes its values through. isolated: no attention
        between the streams. skip_v2a: none of audio to video.
        """
        video_rows = modulation(self.scale_shift_table, video_stream.ada)
        audio_rows = modulation(self.audio_scale_shift_table, audio_stream.ada)
        video = self._self_attention(self.attn1, video, video_rows, video_stream, perturbed)
        audio = self._self_attention(self.audio_attn1, audio, audio_rows, audio_stream, perturbed)
        video_table = self.prompt_scale_shift_table if self.text_modulated else None
        audio_table = self.audio_prompt_scale_shift_table if self.text_modulated else None
        video = self._text_attention(self.attn2, video, video_rows, video_stream, video_table, text_mask)
        audio = self._text_attention(self.audio_attn2, audio, audio_rows, audio_stream, audio_table, text_mask)
        if not isolated:
            video, audio = self._cross_attention(video, audio, video_stream, audio_stream, skip_v2a)
        return (
            self._feed_forward(self.ff, video, video_rows, video_stream.numerics),
            self._feed_forward(self.audio_ff, audio, audio_rows, audio_stream.numerics),
        )

    def _self_attention(
        self, attention: nn.Module, x: torch.Tensor, rows: tuple[torch.Tensor, ...], stream: Stream, perturbed: bool
    ) -> torch.Tensor:
        shift, scale, gate = rows[:3]
        y = _modulate(block_norm(x, self.eps, stream.numerics), shift, scale)
        out = attention(y, query_rope=stream.rope, values_only=perturbed, numerics=stream.numerics)
        return x + out * gate

    def _text_attention(
        self,
        attention: nn.Module,
        x: torch.Tensor,
        rows: tuple[torch.Tensor, ...],
        stream: Stream,
        prompt_table: torch.Tensor | None,
        mask: torch.Tensor | None,
    ) -> torch.Tensor:
        y = block_norm(x, self.eps, stream.numerics)
        if prompt_table is None or stream.ada_prompt is None:
            return x + attention(y, stream.text, mask_BS=mask, numerics=stream.numerics)
        shift, scale, gate = rows[6:]
        text = _modulate(stream.text, *modulation(prompt_table, stream.ada_prompt))
        return x + attention(_modulate(y, shift, scale), text, mask_BS=mask, numerics=stream.numerics) * gate

    def _cross_attention(
        self, video: torch.Tensor, audio: torch.Tensor, video_stream: Stream, audio_stream: Stream, skip_v2a: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Both directions read the states from before either update."""
        video_table, audio_table = (
            self.video_a2v_cross_attn_scale_shift_table,
            self.audio_a2v_cross_attn_scale_shift_table,
        )
        v_a2v_scale, v_a2v_shift, v_v2a_scale, v_v2a_shift = modulation(video_table[:4], video_stream.ada_cross)
        a_a2v_scale, a_a2v_shift, a_v2a_scale, a_v2a_shift = modulation(audio_table[:4], audio_stream.ada_cross)
        (a2v_gate,) = modulation(video_table[4:], video_stream.ada_cross_gate)
        (v2a_gate,) = modulation(audio_table[4:], audio_stream.ada_cross_gate)
        v, a = (block_norm(x, self.eps, video_stream.numerics) for x in (video, audio))
        a2v = self.audio_to_video_attn(
            _modulate(v, v_a2v_shift, v_a2v_scale),
            _modulate(a, a_a2v_shift, a_a2v_scale),
            query_rope=video_stream.cross_rope,
            key_rope=audio_stream.cross_rope,
            numerics=video_stream.numerics,
        )
        video = video + a2v_gate * a2v
        if skip_v2a:
            return video, audio
        v2a = self.video_to_audio_attn(
            _modulate(a, a_v2a_shift, a_v2a_scale),
            _modulate(v, v_v2a_shift, v_v2a_scale),
            query_rope=audio_stream.cross_rope,
            key_rope=video_stream.cross_rope,
            numerics=audio_stream.numerics,
        )
        return video, audio + v2a_gate * v2a

    def _feed_forward(
        self, ff: nn.Module, x: torch.Tensor, rows: tuple[torch.Tensor, ...], numerics: Numerics
    ) -> torch.Tensor:
        shift, scale, gate = rows[3:6]
        return x + ff(_modulate(block_norm(x, self.eps, numerics), shift, scale)) * gate
