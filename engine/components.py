"""Tokenizer, text encoder, VAEs and vocoder of a checkpoint.

Legend: B prompts, T text tokens, D encoder width, L encoder layers, C channels, F H W frames, rows and columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from conformance.errors import bad_field
from conformance.tiling import VideoTiling
from engine.models.ltx2.audio_vae import model as audio_vaes
from engine.models.ltx2.positions import unpack_audio, unpack_video
from engine.models.ltx2.video_vae import model as video_vae
from engine.models.ltx2.video_vae.tiling import Spread, Tiles, Tiling, one_by_one
from engine.models.ltx2.vocoder import model as vocoders
from engine.numerics import Numerics
from engine.pipelines.ltx2_inputs import Latents, TextStates
from engine.text import TextEncoder


@dataclass(frozen=True, kw_only=True)
class Components:
    """The loaded models."""

    text: TextEncoder
    vae: video_vae.VideoVAE
    audio_vae: audio_vaes.AudioVAE
    vocoder: vocoders.Vocoder

    @property
    def audio_rate(self) -> int:
        """Samples a second of the waveform."""
        return self.vocoder.config.output_sampling_rate


def load(checkpoint: Path, dtype: torch.dtype, device: torch.device) -> Components:
    """Load from the diffusers folder layout, safetensors only. InputError names the part that cannot be loaded."""
    text = TextEncoder.load(checkpoint, dtype, device)
    vae = video_vae.load(checkpoint / "vae", dtype, device)
    voice = vocoders.load(checkpoint / "vocoder", dtype, device)
    sound = audio_vaes.load(checkpoint / "audio_vae", dtype, device)
    bins = sound.config.output_channels * sound.config.mel_bins
    if voice.config.in_channels != bins:
        where, expected = str(checkpoint / "vocoder"), f"the audio VAE's {bins} mel bins of all channels"
        raise bad_field(where, "in_channels", voice.config.in_channels, expected)
    return Components(text=text, vae=vae, audio_vae=sound, vocoder=voice)


def encode(parts: Components, prompts: Sequence[str], length: int) -> TextStates:
    """One text encoder call: stripped prompts, left-padded or cut to ``length``, all hidden states [B,T,D*L]."""
    embeds_BTE, mask_BT = parts.text.encode(prompts, length)
    return TextStates(embeds=embeds_BTE, mask=mask_BT)


def latent_sizes(
    parts: Components, channels: int, batch: int, *, height: int, width: int, num_frames: int, frame_rate: float
) -> Latents:
    """Latent sizes of a clip of ``num_frames`` frames of ``height`` x ``width`` pixels and its audio."""
    vae, audio = parts.vae.config, parts.audio_vae.config
    frames = (num_frames - 1) // vae.temporal_compression_ratio + 1
    rows, columns = (size // vae.spatial_compression_ratio for size in (height, width))
    return Latents(
        video=(batch, channels, frames, rows, columns),
        audio=(
            batch,
            audio.latent_channels,
            round(num_frames / frame_rate * audio.latents_per_second),
            audio.latent_bins,
        ),
    )


def encode_image(parts: Components, pixels_BCFHW: torch.Tensor, numerics: Numerics) -> torch.Tensor:
    """Clean latents [1,C,1,h,w] of a picture [1,3,1,H,W]: the encoder's mean, normalised in the dtype they say."""
    mean = video_vae.encode(parts.vae, pixels_BCFHW)
    return video_vae.normalise(parts.vae, mean if numerics.image_normal_dtype == "model" else mean.float())


def decoder_inputs(
    parts: Components, video_BTC: torch.Tensor, audio_BTC: torch.Tensor, latents: Latents, numerics: Numerics
) -> tuple[torch.Tensor, torch.Tensor]:
    """Final states (packed, float32) as the decoders take them: unpacked, denormalised, in the decoders' dtype.

    Video is rounded to the decoder's dtype before its statistics are applied; audio as the numerics say.
    """
    vae, sound = parts.vae, parts.audio_vae
    per_model = numerics.audio_denormal_dtype == "model"
    video = video_vae.denormalise(vae, unpack_video(video_BTC, latents.video[2:]).to(vae.dtype))
    audio = audio_vaes.denormalise(sound, audio_BTC.to(sound.dtype) if per_model else audio_BTC)
    return video, unpack_audio(audio, latents.audio[3]).to(sound.dtype)


def decode(
    parts: Components,
    video: torch.Tensor,
    audio: torch.Tensor,
    numerics: Numerics,
    tiling: VideoTiling | None = None,
    spread: Spread = one_by_one,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames [B,3,F,H,W] around [-1,1] in the decoder's dtype, waveform [B,C,N] in the one the vocoder computes in.

    tiling: of the video; None is one piece. spread: who decodes its tiles.
    """
    frames = video_vae.decode(parts.vae, video, None if tiling is None else _tiling(tiling), spread)
    mel = audio_vaes.decode(parts.audio_vae, audio)
    return frames, vocoders.waveform(parts.vocoder, mel, numerics)


def _tiling(asked: VideoTiling) -> Tiling:
    rows, columns, frames = (
        None if tiles is None else Tiles(size=tiles.size, stride=tiles.stride)
        for tiles in (asked.rows, asked.columns, asked.frames)
    )
    return Tiling(space=None if rows is None or columns is None else (rows, columns), time=frames)
