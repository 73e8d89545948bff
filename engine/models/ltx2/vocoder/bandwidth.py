"""Bandwidth extension (LTX-2.3): a second generator adds what the first one's rate cannot hold.

Source: diffusers 0.42, pipelines/ltx2/vocoder.py. Module and buffer names are those of the diffusers layout.
Legend: B batch, C audio channels, N samples, T frames of the spectrogram, M mel bins, Q frequencies, K taps.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from engine.models.ltx2.vocoder.config import BandwidthVocoderConfig
from engine.models.ltx2.vocoder.generator import Generator
from engine.models.ltx2.vocoder.resample import hann_raised
from engine.numerics import Numerics

_FLOOR = 1e-5  # smallest mel energy before the logarithm


class Stft(nn.Module):
    """Magnitudes of a causal short-time Fourier transform; window and DFT are one basis in the checkpoint.

    The layout also holds a basis for synthesis, which nothing here uses.
    """

    forward_basis: torch.Tensor

    def __init__(self, length: int, hop: int) -> None:
        super().__init__()
        self.hop, self.past = hop, max(0, length - hop)
        rows = 2 * (length // 2 + 1)
        self.register_buffer("forward_basis", torch.empty(rows, 1, length))
        self.register_buffer("inverse_basis", torch.empty(rows, 1, length))

    def forward(self, wave_BN: torch.Tensor) -> torch.Tensor:
        """[B,N] -> [B,Q,T]; a frame ends with its hop and reaches back from there, into zeros before the start."""
        padded = functional.pad(wave_BN[:, None], (self.past, 0))
        real, imaginary = functional.conv1d(padded, self.forward_basis, stride=self.hop).chunk(2, dim=1)
        return torch.sqrt(real**2 + imaginary**2)


class MelSpectrogram(nn.Module):
    """Logarithm of causal mel magnitudes, at least log 1e-5, in the waveform's dtype."""

    mel_basis: torch.Tensor

    def __init__(self, length: int, hop: int, mels: int) -> None:
        super().__init__()
        self.stft_fn = Stft(length, hop)
        self.register_buffer("mel_basis", torch.empty(mels, length // 2 + 1))

    def forward(self, wave_BN: torch.Tensor) -> torch.Tensor:
        """[B,N] -> [B,M,T]."""
        return torch.log(torch.matmul(self.mel_basis, self.stft_fn(wave_BN)).clamp(min=_FLOOR))


class BandwidthVocoder(nn.Module):
    """clamp(resampled first waveform + second generator of its spectrogram) to [-1,1], in the weights' dtype."""

    def __init__(self, config: BandwidthVocoderConfig) -> None:
        super().__init__()
        self.config = config
        self.vocoder = Generator(config.first)
        self.bwe_generator = Generator(config.extender)
        self.mel_stft = MelSpectrogram(config.filter_length, config.hop_length, config.num_mel_channels)

    def forward(self, mel_BCTM: torch.Tensor, numerics: Numerics) -> torch.Tensor:
        """[B,C,T,M] -> [B,C,N] at the output rate. InputError when the input's channels and bins do not fit."""
        wave_BCN = self.vocoder(mel_BCTM)
        if numerics.vocoder_clamp == "clamped":
            wave_BCN = wave_BCN.clamp(-1, 1)
        batch, channels, samples = wave_BCN.shape
        # whole hops, so that the spectrogram covers every sample
        wave_BCN = functional.pad(wave_BCN, (0, -samples % self.config.hop_length))
        mel = self.mel_stft(wave_BCN.flatten(0, 1)).unflatten(0, (batch, channels))
        residual = self.bwe_generator(mel.transpose(2, 3))
        taps_dtype = torch.float32 if numerics.resampler_dtype == "float32" else wave_BCN.dtype
        full = (residual + hann_raised(wave_BCN, self.config.ratio, taps_dtype)).clamp(-1, 1)
        return full[..., : samples * self.config.ratio]
