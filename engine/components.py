"""Components that are not the engine's own yet: tokenizer, text encoder, VAEs and vocoder of the libraries.

A sample lists them as shared with the reference, so that nobody takes them for tested.
Legend: B prompts, T text tokens, D encoder width, L encoder layers, C channels, F H W frames, rows and columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from conformance import guard
from conformance.errors import InputError, bad_field
from conformance.jsonio import read_json
from engine.models.ltx2.positions import unpack_audio, unpack_video
from engine.pipelines.ltx2_one_stage import Latents, TextStates

SHARED = ("tokenizer", "text_encoder", "vae", "audio_vae", "vocoder")


@dataclass(frozen=True, kw_only=True)
class Components:
    """The loaded library objects; ``audio_rate`` is the vocoder's output rate in Hz."""

    tokenizer: Any
    text_encoder: Any
    vae: Any
    audio_vae: Any
    vocoder: Any
    audio_rate: int


def load(checkpoint: Path, dtype: torch.dtype, device: torch.device) -> Components:
    """Load from the diffusers folder layout, safetensors only. InputError names the part that cannot be loaded."""
    guard.install()
    import diffusers
    import transformers
    from diffusers.pipelines.ltx2 import vocoder as vocoders

    config_path = checkpoint / "vocoder" / "config.json"
    data = read_json(config_path)
    kind = data.get("_class_name") if isinstance(data, dict) else None
    if kind not in ("LTX2Vocoder", "LTX2VocoderWithBWE"):
        raise bad_field(str(config_path), "_class_name", kind, "'LTX2Vocoder' or 'LTX2VocoderWithBWE'")
    classes = {
        "text_encoder": transformers.Gemma3ForConditionalGeneration,
        "vae": diffusers.AutoencoderKLLTX2Video,
        "audio_vae": diffusers.AutoencoderKLLTX2Audio,
        "vocoder": getattr(vocoders, kind),
    }
    modules = {name: _module(cls, checkpoint / name, dtype, device) for name, cls in classes.items()}
    _check_decoder(modules["vae"].config, checkpoint / "vae" / "config.json")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint / "tokenizer", local_files_only=True)
    except Exception as error:
        raise _unloadable(checkpoint / "tokenizer", error) from None
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    rate = int(modules["vocoder"].config.output_sampling_rate)
    return Components(tokenizer=tokenizer, audio_rate=rate, **modules)


def _module(cls: Any, folder: Path, dtype: torch.dtype, device: torch.device) -> Any:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected a part of the diffusers layout")
    # diffusers warns at every load unless told not to use a package that is not installed
    options = {} if cls.__module__.startswith("transformers") else {"low_cpu_mem_usage": False}
    try:
        module = cls.from_pretrained(folder, dtype=dtype, use_safetensors=True, local_files_only=True, **options)
    except Exception as error:
        raise _unloadable(folder, error) from None
    return realigned(module.to(device)).eval().requires_grad_(False)


def _check_decoder(config: Any, path: Path) -> None:
    """InputError when the video decoder wants a timestep or draws noise of its own."""
    injects = config.decoder_inject_noise
    for name, value, wanted in (
        ("timestep_conditioning", config.timestep_conditioning, bool(config.timestep_conditioning)),
        ("decoder_inject_noise", injects, injects is True or any(injects or ())),
    ):
        if wanted:
            raise bad_field(str(path), name, value, "false, which is all that is implemented")


def _unloadable(folder: Path, error: Exception) -> InputError:
    """Library errors are long and of any class; the first line says what is wrong with the folder."""
    lines = str(error).strip().splitlines() or [""]
    return InputError(f"{folder}: cannot be loaded ({type(error).__name__}: {lines[0][:200]})")


def realigned(module: nn.Module) -> nn.Module:
    """Parameters and buffers copied to fresh memory: unaligned ones, mapped from a file, change CPU products."""
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.data = tensor.data.clone()
    return module


def encode(parts: Components, prompts: Sequence[str], length: int, device: torch.device) -> TextStates:
    """One text encoder call: stripped prompts, left-padded or cut to ``length``, all hidden states [B,T,D*L]."""
    tokens = parts.tokenizer(
        [prompt.strip() for prompt in prompts],
        padding="max_length",
        max_length=length,
        truncation=True,
        add_special_tokens=True,
        return_tensors="pt",
    ).to(device)
    out = parts.text_encoder(
        input_ids=tokens.input_ids, attention_mask=tokens.attention_mask, output_hidden_states=True
    )
    states_BTDL = torch.stack(out.hidden_states, dim=-1)
    return TextStates(embeds=states_BTDL.flatten(2).to(parts.text_encoder.dtype), mask=tokens.attention_mask)


def latent_sizes(
    parts: Components, channels: int, batch: int, *, height: int, width: int, num_frames: int, frame_rate: float
) -> Latents:
    """Latent sizes of a clip of ``num_frames`` frames of ``height`` x ``width`` pixels and its audio."""
    vae, audio = parts.vae, parts.audio_vae
    frames = (num_frames - 1) // vae.temporal_compression_ratio + 1
    rows, columns = (size // vae.spatial_compression_ratio for size in (height, width))
    latents_per_second = (
        audio.config.sample_rate / audio.config.mel_hop_length / float(audio.temporal_compression_ratio)
    )
    return Latents(
        video=(batch, channels, frames, rows, columns),
        audio=(
            batch,
            audio.config.latent_channels,
            round(num_frames / frame_rate * latents_per_second),
            audio.config.mel_bins // audio.mel_compression_ratio,
        ),
    )


def decoder_inputs(
    parts: Components, video_BTC: torch.Tensor, audio_BTC: torch.Tensor, latents: Latents
) -> tuple[torch.Tensor, torch.Tensor]:
    """Final states (packed, float32) as the decoders take them: unpacked, denormalised, in the decoders' dtype.

    Video is rounded to the decoder's dtype before its statistics are applied, audio after.
    """
    vae, audio_vae = parts.vae, parts.audio_vae
    video = unpack_video(video_BTC, latents.video[2:]).to(vae.dtype)
    mean, std = (stat.view(1, -1, 1, 1, 1).to(video) for stat in (vae.latents_mean, vae.latents_std))
    video = video * std / vae.config.scaling_factor + mean
    audio = audio_BTC * audio_vae.latents_std.to(audio_BTC) + audio_vae.latents_mean.to(audio_BTC)
    return video, unpack_audio(audio, latents.audio[3]).to(audio_vae.dtype)


def decode(parts: Components, video: torch.Tensor, audio: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames [B,3,F,H,W] around [-1,1] and waveform [B,C,N], both in the decoders' dtype."""
    frames = parts.vae.decode(video, None, return_dict=False)[0]
    mel = parts.audio_vae.decode(audio, return_dict=False)[0]
    return frames, parts.vocoder(mel)
