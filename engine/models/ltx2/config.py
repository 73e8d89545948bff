"""Configurations of the LTX-2 and LTX-2.3 models, read from a diffusers checkpoint folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from conformance import quantization
from conformance.errors import bad_field
from engine.configfile import parse

# key -> (implemented value, value of an absent key), the latter being diffusers 0.42's default
_TRANSFORMER_FIXED = {
    "patch_size": (1, 1),
    "patch_size_t": (1, 1),
    "audio_patch_size": (1, 1),
    "audio_patch_size_t": (1, 1),
    "activation_fn": ("gelu-approximate", "gelu-approximate"),
    "qk_norm": ("rms_norm_across_heads", "rms_norm_across_heads"),
    "norm_elementwise_affine": (False, False),
    "attention_bias": (True, True),
    "attention_out_bias": (True, True),
    "rope_double_precision": (True, True),
    "rope_type": ("split", "interleaved"),
    "ff_bias": (True, True),
    "audio_ff_bias": (True, True),
    "use_prompt_adaln_single": (True, True),
    "use_keyframes_abs_pos_embedding": (False, False),
}
# how weights are stored is another matter than what they compute
_TRANSFORMER_UNUSED = frozenset({quantization.KEY})
_CONNECTORS_FIXED = {"rope_double_precision": (True, True), "rope_type": ("split", "interleaved")}
# diffusers stores it and never reads it
_CONNECTORS_UNUSED = frozenset({"causal_temporal_positioning"})


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """``transformer/config.json``. Fields with a default are absent from checkpoints older than LTX-2.3.

    vae_scale_factors: pixels per latent along (time, height, width). timestep multipliers: noise level to
    timestep, and the same for the audio-video gates. pos_embed_max_pos: seconds; base_height, base_width: pixels.
    """

    in_channels: int
    out_channels: int
    num_attention_heads: int
    attention_head_dim: int
    cross_attention_dim: int
    vae_scale_factors: tuple[int, int, int]
    pos_embed_max_pos: int
    base_height: int
    base_width: int
    audio_in_channels: int
    audio_out_channels: int
    audio_num_attention_heads: int
    audio_attention_head_dim: int
    audio_cross_attention_dim: int
    audio_scale_factor: int
    audio_pos_embed_max_pos: int
    audio_sampling_rate: int
    audio_hop_length: int
    num_layers: int
    norm_eps: float
    caption_channels: int
    rope_theta: float
    causal_offset: int
    timestep_scale_multiplier: int
    cross_attn_timestep_scale_multiplier: int
    gated_attn: bool = False
    cross_attn_mod: bool = False
    audio_gated_attn: bool = False
    audio_cross_attn_mod: bool = False
    use_prompt_embeddings: bool = True
    perturbed_attn: bool = False

    @classmethod
    def load(cls, folder: Path) -> TransformerConfig:
        """Read and check ``folder/config.json``. InputError names the file, the key and what was expected."""
        path = folder / "config.json"
        config = parse(cls, path, fixed=_TRANSFORMER_FIXED, unused=_TRANSFORMER_UNUSED)
        for name, expected in (
            ("audio_num_attention_heads", config.num_attention_heads),
            ("cross_attention_dim", config.width),
            ("audio_cross_attention_dim", config.audio_width),
            ("audio_cross_attn_mod", config.cross_attn_mod),
        ):
            if getattr(config, name) != expected:
                raise bad_field(str(path), name, getattr(config, name), f"{expected!r}, as other fields imply")
        return config

    @property
    def width(self) -> int:
        return self.num_attention_heads * self.attention_head_dim

    @property
    def audio_width(self) -> int:
        return self.audio_num_attention_heads * self.audio_attention_head_dim

    @property
    def model(self) -> str:
        """``ltx-2.3`` when text cross attention is modulated, else ``ltx-2``."""
        return "ltx-2.3" if self.cross_attn_mod else "ltx-2"


@dataclass(frozen=True, kw_only=True)
class ConnectorsConfig:
    """``connectors/config.json``. Fields with a default are absent from checkpoints older than LTX-2.3."""

    caption_channels: int
    text_proj_in_factor: int
    video_connector_num_attention_heads: int
    video_connector_attention_head_dim: int
    video_connector_num_layers: int
    video_connector_num_learnable_registers: int
    audio_connector_num_attention_heads: int
    audio_connector_attention_head_dim: int
    audio_connector_num_layers: int
    audio_connector_num_learnable_registers: int
    connector_rope_base_seq_len: int
    rope_theta: float
    video_gated_attn: bool = False
    audio_gated_attn: bool = False
    per_modality_projections: bool = False
    video_hidden_dim: int = 4096
    audio_hidden_dim: int = 2048
    proj_bias: bool = False

    @classmethod
    def load(cls, folder: Path) -> ConnectorsConfig:
        """Read and check ``folder/config.json``. InputError names the file, the key and what was expected."""
        return parse(cls, folder / "config.json", fixed=_CONNECTORS_FIXED, unused=_CONNECTORS_UNUSED)
