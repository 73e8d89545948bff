"""Token layout of the LTX-2 latents: packing, and where each token lies in seconds and pixels.

Legend: B batch, C channels, F H W latent frames, rows and columns, L latent audio frames, M mel bins, T tokens.
"""

from __future__ import annotations

import torch

from engine.models.ltx2.config import TransformerConfig
from engine.numerics import Numerics


def pack_video(x_BCFHW: torch.Tensor, numerics: Numerics) -> torch.Tensor:
    """[B,C,F,H,W] -> tokens [B,F*H*W,C], time slowest; in memory as ``numerics.token_memory`` says."""
    x_BTC = x_BCFHW.flatten(2).transpose(1, 2)
    return x_BTC.contiguous() if numerics.token_memory == "copy" else x_BTC


def unpack_video(x_BTC: torch.Tensor, shape_FHW: tuple[int, int, int]) -> torch.Tensor:
    """The inverse of ``pack_video``."""
    return x_BTC.transpose(1, 2).unflatten(2, shape_FHW)


def pack_audio(x_BCLM: torch.Tensor) -> torch.Tensor:
    """[B,C,L,M] -> tokens [B,L,C*M], channel slowest."""
    return x_BCLM.transpose(1, 2).flatten(2)


def unpack_audio(x_BTC: torch.Tensor, mel_bins: int) -> torch.Tensor:
    """The inverse of ``pack_audio``."""
    return x_BTC.unflatten(2, (-1, mel_bins)).transpose(1, 2)


def _causal(bounds: torch.Tensor, offset: int, stride: int) -> torch.Tensor:
    """A causal VAE encodes one sample in its first latent: shift the grid back by stride-1, but not below 0."""
    return (bounds + offset - stride).clamp(min=0)


def video_bounds(
    shape_FHW: tuple[int, int, int], frame_rate: float, batch: int, config: TransformerConfig, device: torch.device
) -> torch.Tensor:
    """[start, end) of every token: [B,3,T,2] float32, seconds along time and pixels along height and width."""
    axes = [torch.arange(size, dtype=torch.float32, device=device) for size in shape_FHW]
    start_3T = torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1)
    scale = torch.tensor(config.vae_scale_factors, dtype=torch.float32, device=device)
    bounds_3T2 = torch.stack((start_3T, start_3T + 1), dim=-1) * scale[:, None, None]
    seconds = _causal(bounds_3T2[0], config.causal_offset, config.vae_scale_factors[0]) / frame_rate
    return torch.stack((seconds, bounds_3T2[1], bounds_3T2[2])).unsqueeze(0).repeat(batch, 1, 1, 1)


def rounded(bounds: torch.Tensor, dtype: torch.dtype, numerics: Numerics) -> torch.Tensor:
    """Float32 bounds in the dtype that ``numerics.positions_dtype`` has them take part in a model of ``dtype``."""
    return bounds.to(dtype) if numerics.positions_dtype == "model" else bounds


def audio_bounds(tokens: int, batch: int, config: TransformerConfig, device: torch.device) -> torch.Tensor:
    """[start, end) of every token in seconds: [B,1,T,2] float32."""
    index = torch.arange(tokens, dtype=torch.float32, device=device)
    bounds_T2 = torch.stack((index, index + 1), dim=-1) * config.audio_scale_factor
    frames = _causal(bounds_T2, config.causal_offset, config.audio_scale_factor)
    # two operations, not one factor: 160 / 16000 is not a float32
    seconds = frames * config.audio_hop_length / config.audio_sampling_rate
    return seconds[None, None].repeat(batch, 1, 1, 1)
