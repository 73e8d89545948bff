"""The audio VAE: 16 kHz, hop 160, 64 mel bins, 4x4 of them a latent, 8 latent channels.

``base_channels`` cannot shrink: it is also the number of latent statistics, 8 channels x 16 mel bins.
"""

from __future__ import annotations

from typing import Any

from diffusers.models.autoencoders.autoencoder_kl_ltx2_audio import AutoencoderKLLTX2Audio

from reference_impl.tiny.fill import fill

CONFIG: dict[str, Any] = {
    "base_channels": 128,
    "output_channels": 2,
    "ch_mult": (1, 1, 1),
    "num_res_blocks": 1,
    "attn_resolutions": None,
    "in_channels": 2,
    "resolution": 256,
    "latent_channels": 8,
    "norm_type": "pixel",
    "causality_axis": "height",
    "dropout": 0.0,
    "mid_block_add_attention": False,
    "sample_rate": 16000,
    "mel_hop_length": 160,
    "is_causal": True,
    "mel_bins": 64,
    "double_z": True,
}


def build(model: str) -> AutoencoderKLLTX2Audio:
    """The filled audio VAE of ``ltx-2`` or ``ltx-2.3``, bfloat16."""
    vae = AutoencoderKLLTX2Audio(**CONFIG)
    fill(vae, f"{model}/audio_vae")
    return vae
