"""Audio VAEs and vocoders of several configurations, as folders that diffusers wrote, and one input for both sides."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_ltx2_audio import AutoencoderKLLTX2Audio
from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder, LTX2VocoderWithBWE

from reference_impl.diffusers_load import realigned
from reference_impl.tiny import audio_vae, vocoder
from reference_impl.tiny.build import cached
from reference_impl.tiny.fill import fill

_ROOT = tempfile.TemporaryDirectory(prefix="audio-")  # gone when the process ends
# 3 x 4 = 12 statistics, widths that change both ways, other channels in and out
OTHER_VAE: dict[str, Any] = audio_vae.CONFIG | {
    "base_channels": 12,
    "latent_channels": 3,
    "mel_bins": 16,
    "ch_mult": (1, 3, 2),
    "num_res_blocks": 2,
    "in_channels": 1,
    "output_channels": 3,
}
_SMALL: dict[str, Any] = {
    "in_channels": 12,
    "hidden_channels": 16,
    "out_channels": 3,
    "upsample_kernel_sizes": [9, 3],
    "upsample_factors": [5, 3],
    "resnet_kernel_sizes": [3, 5, 7],
    "resnet_dilations": [[1, 2], [3], [1, 3, 5]],
}
_PERIODIC: dict[str, Any] = {"antialias": True, "antialias_ratio": 3, "antialias_kernel_size": 11, "final_bias": True}
# 15 samples a frame are no whole number of hops
_EXTENDER: dict[str, Any] = {
    "in_channels": 24,
    "upsample_kernel_sizes": [8, 8],
    "upsample_factors": [8, 4],
    "act_fn": "snakebeta",
    "antialias_ratio": 2,
    "antialias_kernel_size": 8,
    "final_act_fn": None,
}
_SPECTRUM: dict[str, Any] = {
    "filter_length": 64,
    "window_length": 64,
    "hop_length": 16,
    "num_mel_channels": 8,
    "input_sampling_rate": 8000,
    "output_sampling_rate": 16000,
}
# name -> class, configuration, gains
VOCODERS: dict[str, tuple[Any, dict[str, Any], dict[str, float]]] = {
    "leaky": (LTX2Vocoder, _SMALL | {"leaky_relu_negative_slope": 0.3, "final_act_fn": None, "final_bias": False}, {}),
    "snake": (LTX2Vocoder, _SMALL | _PERIODIC | {"act_fn": "snake", "final_act_fn": "clamp"}, {"conv_out": 2.0}),
    "extended": (
        LTX2VocoderWithBWE,
        _SMALL
        | _PERIODIC
        | {"act_fn": "snake", "final_act_fn": "clamp"}
        | {f"bwe_{key}": value for key, value in (_SMALL | _PERIODIC | _EXTENDER).items()}
        | _SPECTRUM,
        {"vocoder.conv_out": 1.0, "bwe_generator.conv_out": 0.05},
    ),
}


@cache
def other_vae() -> Path:
    """Folder of an audio VAE that is not the tiny checkpoints'."""
    vae = AutoencoderKLLTX2Audio(**OTHER_VAE)
    fill(vae, "other/audio_vae")
    return _saved(vae, "audio_vae")


@cache
def vocoder_folder(name: str) -> Path:
    """Folder of one of ``VOCODERS``, or of the tiny checkpoint called ``name``."""
    if name not in VOCODERS:
        return cached(name) / "vocoder"
    cls, config, gains = VOCODERS[name]
    model = cls(**config)
    if cls is LTX2VocoderWithBWE:
        stft, length = model.mel_stft.stft_fn, config["filter_length"]
        stft.forward_basis = vocoder.stft_basis(length)
        stft.inverse_basis = vocoder.stft_basis(length, inverse=True)
        model.mel_stft.mel_basis = vocoder.mel_basis(config["num_mel_channels"], length, config["input_sampling_rate"])
    fill(model, f"other/{name}", gains=gains, keep=(*vocoder.FILTERS, *vocoder.BASES))
    return _saved(model, name)


def _saved(model: Any, name: str) -> Path:
    folder = Path(_ROOT.name) / name
    model.save_pretrained(folder)
    return folder


@cache
def diffusers_vae(folder: Path, dtype: torch.dtype) -> Any:
    return _loaded(AutoencoderKLLTX2Audio, folder, dtype)


@cache
def diffusers_vocoder(folder: Path, dtype: torch.dtype) -> Any:
    extended = '"LTX2VocoderWithBWE"' in (folder / "config.json").read_text()
    return _loaded(LTX2VocoderWithBWE if extended else LTX2Vocoder, folder, dtype)


def _loaded(cls: Any, folder: Path, dtype: torch.dtype) -> Any:
    return realigned(cls.from_pretrained(folder, dtype=dtype, low_cpu_mem_usage=False)).eval().requires_grad_(False)


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
