"""The audio VAE of LTX-2 and LTX-2.3 and what callers do with it: encode, decode, normalise, denormalise.

Source: diffusers 0.42, autoencoder_kl_ltx2_audio.py and pipeline_ltx2.py. Buffer names are those of its layout.
Legend: B batch, C audio channels, T mel frames, M mel bins, L latent frames, Z latent channels, W latent bins, F = Z*W.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from torch import nn

from conformance.errors import bad_field
from engine.models.ltx2 import weights
from engine.models.ltx2.audio_vae.coders import Decoder, Encoder
from engine.models.ltx2.audio_vae.config import AudioVAEConfig


class AudioVAE(nn.Module):
    """Encoder, decoder and the statistics of each feature of a packed latent token, in the dtype of the weights."""

    latents_mean: torch.Tensor
    latents_std: torch.Tensor

    def __init__(self, config: AudioVAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.register_buffer("latents_mean", torch.empty(config.base_channels))
        self.register_buffer("latents_std", torch.empty(config.base_channels))

    @property
    def dtype(self) -> torch.dtype:
        return self.latents_mean.dtype


def load(folder: Path, dtype: torch.dtype, device: torch.device) -> AudioVAE:
    """The VAE of ``folder`` (``config.json`` and safetensors). InputError when it cannot be used."""
    return weights.load(partial(AudioVAE, AudioVAEConfig.load(folder)), folder, dtype, device)


def encode(vae: AudioVAE, mel_BCTM: torch.Tensor) -> torch.Tensor:
    """Log-mel spectrogram, of the VAE's dtype -> means of the latents [B,Z,L,W], L = T / 4 rounded up, same dtype.

    They are not normalised. InputError for other channels or bins than the configuration's.
    """
    _check_shape("mel", mel_BCTM, vae.config.in_channels, vae.config.mel_bins)
    return vae.encoder(mel_BCTM).chunk(2, dim=1)[0]


def decode(vae: AudioVAE, latents_BZLW: torch.Tensor) -> torch.Tensor:
    """Denormalised latents, of the VAE's dtype -> log-mel spectrogram [B,C,4L-3,M], same dtype.

    InputError for other channels or bins than the configuration's.
    """
    _check_shape("latents", latents_BZLW, vae.config.latent_channels, vae.config.latent_bins)
    return vae.decoder(latents_BZLW)


def normalise(vae: AudioVAE, tokens_BLF: torch.Tensor) -> torch.Tensor:
    """(x - mean) / std of packed latents, in their dtype, to which the statistics are cast."""
    return (tokens_BLF - vae.latents_mean.to(tokens_BLF)) / vae.latents_std.to(tokens_BLF)


def denormalise(vae: AudioVAE, tokens_BLF: torch.Tensor) -> torch.Tensor:
    """x * std + mean of packed latents, in their dtype, to which the statistics are cast."""
    return tokens_BLF * vae.latents_std.to(tokens_BLF) + vae.latents_mean.to(tokens_BLF)


def _check_shape(name: str, x: torch.Tensor, channels: int, bins: int) -> None:
    if x.ndim != 4 or 0 in x.shape or x.shape[1] != channels or x.shape[3] != bins:
        raise bad_field("audio VAE", name, tuple(x.shape), f"a shape [B, {channels}, frames, {bins}]")
