"""A checkpoint folder in the diffusers layout as models of one dtype on one device."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from conformance import checkpoint as checkpoints
from conformance.case import Case, SecondStage
from conformance.errors import UnsupportedCase, bad_field
from conformance.quantization import resolve
from engine import components, lora, quantization
from engine.models.ltx2 import upsampler, weights
from engine.models.ltx2.config import ConnectorsConfig, TransformerConfig
from engine.models.ltx2.connectors import LTX2Connectors
from engine.models.ltx2.transformer import LTX2Transformer
from engine.numerics import Numerics
from engine.pipelines import ltx2
from engine.sampling.schedule import ScheduleConfig

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class _Loaded:
    transformer: LTX2Transformer
    connectors: LTX2Connectors
    parts: components.Components


class Loader:
    """Keeps what every case needs from one case to the next while the dtype stays the same."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self._folder, self._device = folder, device
        self._kept: tuple[tuple[str, str], _Loaded] | None = None

    def models(self, case: Case, numerics: Numerics) -> ltx2.Models:
        """What the case runs on. InputError when the checkpoint is of another model or lacks a part.

        UnsupportedCase for a LoRA on quantized weights.
        """
        quantized = resolve(case.quantization, self._folder)
        if quantized != "none" and case.request.second is not None and _strengths(case.request.second) != (0.0, 0.0):
            raise UnsupportedCase(
                f"engine: 'quantization' is {quantized!r}; the engine merges a LoRA into wide weights"
            )
        loaded = self.common(case.dtype, quantized)
        config, request = loaded.transformer.config, case.request
        if config.model != case.model:
            raise bad_field(str(self._folder), "transformer", config.model, f"{case.model!r}, as the case says")
        first, second = loaded.transformer, None
        if request.second is not None:
            upscaler = upsampler.load(self._folder / "latent_upsampler", DTYPES[case.dtype], self._device)
            first, then = self._adapted(loaded.transformer, request.second, numerics)
            second = (upscaler, then)
        return ltx2.Models(
            first=first,
            second=second,
            connectors=loaded.connectors,
            parts=loaded.parts,
            curve=ScheduleConfig.load(self._folder / "scheduler"),
        )

    def digests(self, case: Case) -> dict[str, str]:
        """Digests of everything the case reads, the distilled LoRA aside."""
        optional = () if case.request.second is None else ("latent_upsampler",)
        return checkpoints.digests(self._folder, optional=optional)

    def lora_digest(self, second: SecondStage) -> str | None:
        """Digest of the distilled LoRA where a stage has it merged."""
        if second.lora_first == second.lora_second == 0.0:
            return None
        return checkpoints.digests(self._folder, optional=("distilled_lora",))["distilled_lora"]

    def common(self, dtype: str, quantized: str = "none") -> _Loaded:
        """The checkpoint in ``dtype``, its transformer ``quantized``; what was loaded otherwise is dropped first."""
        if self._kept is None or self._kept[0] != (dtype, quantized):
            self._kept = None
            transformer, connectors = self._folder / "transformer", self._folder / "connectors"
            build = partial(LTX2Transformer, TransformerConfig.load(transformer))
            build_connectors = partial(LTX2Connectors, ConnectorsConfig.load(connectors))
            loaded = _Loaded(
                transformer=quantization.load(build, transformer, DTYPES[dtype], self._device, quantization=quantized),
                connectors=weights.load(build_connectors, connectors, DTYPES[dtype], self._device),
                parts=components.load(self._folder, DTYPES[dtype], self._device),
            )
            self._kept = ((dtype, quantized), loaded)
        return self._kept[1]

    def _adapted(
        self, transformer: LTX2Transformer, second: SecondStage, numerics: Numerics
    ) -> tuple[LTX2Transformer, LTX2Transformer]:
        """The transformer of each stage, the distilled LoRA merged into it at the stage's strength."""
        strengths = _strengths(second)
        if strengths == (0.0, 0.0):
            return transformer, transformer
        adapter = lora.read(checkpoints.distilled_lora(self._folder))
        first, then = (
            lora.merged(transformer, adapter, strength, numerics) if strength else transformer for strength in strengths
        )
        return first, then


def _strengths(second: SecondStage) -> tuple[float, float]:
    """Of the distilled LoRA in each stage."""
    return second.lora_first, second.lora_second
