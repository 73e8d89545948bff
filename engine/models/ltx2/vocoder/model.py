"""Loading and running either vocoder."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

from engine.models.ltx2 import weights
from engine.models.ltx2.vocoder import config as configs
from engine.models.ltx2.vocoder.bandwidth import BandwidthVocoder
from engine.models.ltx2.vocoder.generator import Generator
from engine.numerics import Numerics

Vocoder = Generator | BandwidthVocoder


def build(config: configs.GeneratorConfig) -> Vocoder:
    """The module of a configuration, without weights."""
    return BandwidthVocoder(config) if isinstance(config, configs.BandwidthVocoderConfig) else Generator(config)


def load(folder: Path, dtype: torch.dtype, device: torch.device) -> Vocoder:
    """The vocoder of a checkpoint's folder. InputError when configuration or weights do not fit what is implemented."""
    return weights.load(partial(build, configs.load(folder)), folder, dtype, device)


def waveform(vocoder: Vocoder, mel_BCTM: torch.Tensor, numerics: Numerics) -> torch.Tensor:
    """Log-mel spectrogram [B,C,T,M] to waveform [B,C,N] around [-1,1], in the spectrogram's dtype.

    InputError when the input's channels and bins do not fit.
    """
    if isinstance(vocoder, Generator):
        return vocoder(mel_BCTM)
    if numerics.vocoder_dtype == "model":
        return vocoder(mel_BCTM, numerics)
    # weights stay rounded to the model's dtype; the copies live as long as the call
    tensors = {name: tensor.float() for name, tensor in vocoder.state_dict().items()}
    return torch.func.functional_call(vocoder, tensors, (mel_BCTM.float(), numerics)).to(mel_BCTM.dtype)
