"""What differs between versions of the packages, behind one interface; everything else here knows no version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from conformance.case import Request
from conformance.errors import ReferenceMissing
from conformance.generator import Probe
from reference_impl.official import packages, v1_0, v1_2
from reference_impl.official.stages import Stage


class Version(Protocol):
    """The functions of a module ``v*``. B (1), F, H, W, C: outputs, frames, pixels, channels.

    PIPELINES: those that can be run. SKIPS_V2A: whether video-to-audio attention can be left out.
    AUDIO_OF_FIRST_STAGE: of two stages, the first one's audio is heard.
    configured: a module of a configurator, from the configuration of a single file.
    text_encoder: over a Gemma of ``dtype`` and a tokenizer folder; prompts are padded to ``text_tokens``.
    encode: hidden states of every layer [1,T,D] and token mask [1,T], a pair each prompt, in order.
    denoise: final states: ``video`` and ``audio`` unpacked, and ``packed`` ones by stream. given: conditionings of the
        packages. initial: unpacked latents by stream that are noised to the first of the stage's levels.
    fused: the ``StateDict`` of a transformer with a ``LoraStateDictWithStrength`` merged into it. dtype: the case's.
    decode_video: bytes [F,H,W,C], and values in [0,1] before they become bytes [B,F,H,W,C].
    decode_audio: the packages' ``Audio``. The vocoder may be left in another dtype.
    """

    PIPELINES: tuple[str, ...]
    SKIPS_V2A: bool
    AUDIO_OF_FIRST_STAGE: bool

    def configured(self, configurator: Any, config: dict[str, Any]) -> Any: ...

    def text_encoder(self, gemma: nn.Module, tokenizer: Path, text_tokens: int, dtype: torch.dtype) -> Any: ...

    def encode(self, encoder: Any, prompts: list[str]) -> list[Any]: ...

    def denoise(
        self,
        modules: Any,
        stage: Stage,
        request: Request,
        text: dict[str, Any],
        dtype: torch.dtype,
        probe: Probe,
        *,
        given: Sequence[Any] = (),
        initial: Mapping[str, torch.Tensor] | None = None,
    ) -> dict[str, Any]: ...

    def fused(self, weights: Any, lora: Any, dtype: torch.dtype) -> Any: ...

    def decode_video(self, latent: torch.Tensor, decoder: Any) -> tuple[torch.Tensor, torch.Tensor]: ...

    def decode_audio(self, latent: torch.Tensor, decoder: Any, vocoder: Any) -> Any: ...


VERSIONS: dict[str, Version] = {"1.0.0": v1_0, "1.2.0": v1_2}


def installed() -> Version:
    """Those of the packages that Python imports. ReferenceMissing when their version is not a known one."""
    return of(packages.installed_version())


def of(version: str) -> Version:
    """Those of a version. ReferenceMissing when it is not a known one."""
    if version not in VERSIONS:
        raise ReferenceMissing(f"official packages: version is {version}; expected one of {sorted(VERSIONS)}")
    return VERSIONS[version]
