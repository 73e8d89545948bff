"""Where stages start: from noise, from noise and a given frame, or from what the first stage left.

Legend: B prompts, T tokens of a stream, C latent channels, F H W latent frames, rows and columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from conformance.generator import Probe
from engine.models.ltx2 import positions
from engine.models.ltx2.audio_vae import model as audio_vae
from engine.numerics import Numerics
from engine.pipelines.ltx2_inputs import STREAMS, Latents
from engine.sampling.given import Given
from engine.sampling.noiser import noised

States = Mapping[str, torch.Tensor]


def noisy_tokens(latents: Latents, strength: float, device: torch.device) -> torch.Tensor:
    """Share of the noise level of each video token [B,T,1]: 1, and 1-strength for those of a given first frame."""
    batch, _, frames, rows, columns = latents.video
    noisy_BFN = torch.ones(batch, frames, rows * columns, device=device)
    noisy_BFN[:, 0] = 1.0 - strength
    return noisy_BFN.flatten(1)[..., None]


def given_frame(first_BCFHW: torch.Tensor, strength: float, latents: Latents, numerics: Numerics) -> Given:
    """Tokens of a given first frame. first_BCFHW: its clean normalised latents, F = 1, of one or of every output."""
    clean = first_BCFHW.expand(latents.video[0], -1, -1, -1, -1)
    rest = torch.zeros_like(clean).expand(-1, -1, latents.video[2] - 1, -1, -1)
    tokens = positions.pack_video(torch.cat((clean, rest), dim=2), numerics)
    return Given(mask_BT1=noisy_tokens(latents, strength, tokens.device), clean_BTC=tokens)


def from_noise(
    noise: States, given: Given | None, latents: Latents, numerics: Numerics, dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    """States [B,T,C] of ``dtype`` at noise level 1; a given frame of the video is in its place."""
    state = {stream: noise[stream].to(dtype) for stream in STREAMS}
    if given is not None:
        mixed = noised(given.clean_BTC.to(dtype), noise["video"], 1.0, numerics, given)
        state["video"] = _laid_out(mixed, latents, numerics)
    return state


def from_latents(
    start: States,
    noise: States,
    level: float,
    given: Given | None,
    latents: Latents,
    numerics: Numerics,
    dtype: torch.dtype,
    probe: Probe,
) -> dict[str, torch.Tensor]:
    """States [B,T,C] of ``dtype``: ``start`` noised to ``level``, each stream in its own dtype."""
    video = start["video"]
    if given is not None and numerics.noiser != "lerp":
        video = torch.where(given.mask_BT1 < 1, given.clean_BTC.to(video.dtype), video)
    for stream, state in (("video", video), ("audio", start["audio"])):
        probe.tap(f"start/{stream}", state)
    mixed = noised(video, noise["video"], level, numerics, given)
    if numerics.second_memory == "latents":
        mixed = _laid_out(mixed, latents, replace(numerics, token_memory="view"))
    else:  # noise of text-to-video is drawn for packed latents here: its memory is that of tokens
        mixed = mixed.contiguous() if given is None else _laid_out(mixed, latents, numerics)
    audio = noised(start["audio"], noise["audio"], level, numerics)
    return {"video": mixed.to(dtype), "audio": audio.to(dtype)}


def _laid_out(video_BTC: torch.Tensor, latents: Latents, numerics: Numerics) -> torch.Tensor:
    """The same tokens in memory as if they had just been packed."""
    return positions.pack_video(positions.unpack_video(video_BTC, latents.video[2:]).contiguous(), numerics)


def handed_over(vae: audio_vae.AudioVAE, audio_BTC: torch.Tensor, numerics: Numerics) -> torch.Tensor:
    """The first stage's audio state [B,T,C] as the second stage gets it, in its own dtype."""
    if numerics.audio_handoff == "direct":
        return audio_BTC
    return audio_vae.normalise(vae, audio_vae.denormalise(vae, audio_BTC))
