"""The DiT of LTX-2 and LTX-2.3. Legend: B batch, T tokens of a stream, C latent channels, S text tokens, W width."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from engine.layers.embeddings import AdaLNHead, CaptionProjection
from engine.layers.norm import layer_norm
from engine.layers.rope import Rotary, midpoints, rotary
from engine.models.ltx2.block import Block, Stream
from engine.models.ltx2.config import TransformerConfig
from engine.numerics import Numerics

_OUT_EPS = 1e-6


@dataclass(frozen=True, kw_only=True)
class ModelInputs:
    """One forward. States, text and mask in the model dtype; times in float32; bounds in float32 or the model dtype,
    in which their middles and fractions are then computed.

    video, audio: packed state [B,T,C]. video_text, audio_text: connector outputs [B,S,·]. text_mask: 1 for
    valid text [B,S], or None. timestep, audio_timestep: noise level * 1000, [B] or per token [B,T].
    sigma: noise level * 1000 of the whole entry [B]. video_bounds: [B,3,T,2]; audio_bounds: [B,1,T,2].
    stg_blocks: blocks whose self attention passes its values through. isolated: no cross-modal attention.
    skip_v2a: none of audio to video.
    """

    video: torch.Tensor
    audio: torch.Tensor
    video_text: torch.Tensor
    audio_text: torch.Tensor
    text_mask: torch.Tensor | None
    timestep: torch.Tensor
    audio_timestep: torch.Tensor
    sigma: torch.Tensor
    video_bounds: torch.Tensor
    audio_bounds: torch.Tensor
    stg_blocks: tuple[int, ...] = ()
    isolated: bool = False
    skip_v2a: bool = False


class LTX2Transformer(nn.Module):
    """Velocity of both streams. Parameter names are those of the diffusers layout."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        video, audio = config.width, config.audio_width
        self.proj_in = nn.Linear(config.in_channels, video)
        self.audio_proj_in = nn.Linear(config.audio_in_channels, audio)
        if config.use_prompt_embeddings:
            self.caption_projection = CaptionProjection(config.caption_channels, video)
            self.audio_caption_projection = CaptionProjection(config.caption_channels, audio)
        rows = 9 if config.cross_attn_mod else 6
        self.time_embed = AdaLNHead(video, rows)
        self.audio_time_embed = AdaLNHead(audio, rows)
        self.av_cross_attn_video_scale_shift = AdaLNHead(video, 4)
        self.av_cross_attn_audio_scale_shift = AdaLNHead(audio, 4)
        self.av_cross_attn_video_a2v_gate = AdaLNHead(video, 1)
        self.av_cross_attn_audio_v2a_gate = AdaLNHead(audio, 1)
        self.scale_shift_table = nn.Parameter(torch.empty(2, video))
        self.audio_scale_shift_table = nn.Parameter(torch.empty(2, audio))
        if config.cross_attn_mod:
            self.prompt_adaln = AdaLNHead(video, 2)
            self.audio_prompt_adaln = AdaLNHead(audio, 2)
        self.transformer_blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.proj_out = nn.Linear(video, config.out_channels)
        self.audio_proj_out = nn.Linear(audio, config.audio_out_channels)

    def forward(self, inputs: ModelInputs, numerics: Numerics) -> tuple[torch.Tensor, torch.Tensor]:
        """Velocity [B,T,C] of video and audio, in the model dtype."""
        dtype = inputs.video.dtype
        video_ropes, audio_ropes = self._ropes(inputs, numerics)
        own, own_gate = numerics.av_timestep != "cross", numerics.av_timestep == "own"
        video_cross = inputs.timestep if own else inputs.sigma
        audio_cross = inputs.audio_timestep if own else inputs.sigma
        gate_factor = self.config.cross_attn_timestep_scale_multiplier / self.config.timestep_scale_multiplier
        video_gate = (inputs.timestep if own_gate else inputs.sigma) * gate_factor
        audio_gate = (inputs.audio_timestep if own_gate else inputs.sigma) * gate_factor
        video_ada, video_embedded = self.time_embed(inputs.timestep, dtype)
        audio_ada, audio_embedded = self.audio_time_embed(inputs.audio_timestep, dtype)
        mod = self.config.cross_attn_mod
        project = self.config.use_prompt_embeddings
        video_stream = Stream(
            text=self.caption_projection(inputs.video_text) if project else inputs.video_text,
            ada=video_ada,
            ada_prompt=self.prompt_adaln(inputs.sigma, dtype)[0] if mod else None,
            ada_cross=self.av_cross_attn_video_scale_shift(video_cross, dtype)[0],
            ada_cross_gate=self.av_cross_attn_video_a2v_gate(video_gate, dtype)[0],
            rope=video_ropes[0],
            cross_rope=video_ropes[1],
            numerics=numerics,
        )
        audio_stream = Stream(
            text=self.audio_caption_projection(inputs.audio_text) if project else inputs.audio_text,
            ada=audio_ada,
            ada_prompt=self.audio_prompt_adaln(inputs.sigma, dtype)[0] if mod else None,
            ada_cross=self.av_cross_attn_audio_scale_shift(audio_cross, dtype)[0],
            ada_cross_gate=self.av_cross_attn_audio_v2a_gate(audio_gate, dtype)[0],
            rope=audio_ropes[0],
            cross_rope=audio_ropes[1],
            numerics=numerics,
        )
        mask = None if inputs.text_mask is None else (1 - inputs.text_mask.to(dtype)) * -10000.0
        video, audio = self.proj_in(inputs.video), self.audio_proj_in(inputs.audio)
        for index, block in enumerate(self.transformer_blocks):
            perturbed = index in inputs.stg_blocks
            video, audio = block(
                video, audio, video_stream, audio_stream, mask, perturbed, inputs.isolated, inputs.skip_v2a
            )
        return (
            _output(video, video_embedded, self.scale_shift_table, self.proj_out),
            _output(audio, audio_embedded, self.audio_scale_shift_table, self.audio_proj_out),
        )

    def _ropes(self, inputs: ModelInputs, numerics: Numerics) -> tuple[tuple[Rotary, Rotary], tuple[Rotary, Rotary]]:
        """(self attention, cross-modal) tables of each stream; the latter follow time only, at the audio width."""
        config = self.config
        video, audio = midpoints(inputs.video_bounds), midpoints(inputs.audio_bounds)
        shared = max(config.pos_embed_max_pos, config.audio_pos_embed_max_pos)

        def table(positions: torch.Tensor, maxima: tuple[int, ...], dim: int) -> Rotary:
            fractions = torch.stack([positions[:, i] / maximum for i, maximum in enumerate(maxima)], dim=1)
            return rotary(
                fractions, dim=dim, heads=config.num_attention_heads, theta=config.rope_theta, numerics=numerics
            )

        maxima = (config.pos_embed_max_pos, config.base_height, config.base_width)
        return (
            (table(video, maxima, config.width), table(video, (shared,), config.audio_width)),
            (
                table(audio, (config.audio_pos_embed_max_pos,), config.audio_width),
                table(audio, (shared,), config.audio_width),
            ),
        )


def _output(x: torch.Tensor, embedded: torch.Tensor, table: torch.Tensor, projection: nn.Module) -> torch.Tensor:
    shift, scale = (table + embedded[:, :, None]).unbind(2)
    return projection(layer_norm(x, _OUT_EPS) * (1 + scale) + shift)
