"""The distilled LoRA, merged by the packages' own ``apply_loras``.

The product of its factors is taken in their dtype; the sum with the weight, which has to be stored as bfloat16, in the
dtype of the case. That is what the packages' builder does for a model of either dtype.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from conformance.errors import InputError, bad_field
from reference_impl.official import versions

_SIDES = (".lora_A.weight", ".lora_B.weight")


def merged(
    weights: dict[str, torch.Tensor], path: Path, strength: float, dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    """All of a transformer's ``weights`` (official names without prefix, as stored), in ``dtype``.

    InputError for a LoRA that has a factor without its partner or for no weight, and for weights it cannot be added to.
    """
    from ltx_core.loader import LTXV_LORA_COMFY_RENAMING_MAP, LoraStateDictWithStrength, StateDict

    # copies: out of the mapped file, whose alignment picks GEMMs
    factors = {
        str(LTXV_LORA_COMFY_RENAMING_MAP.apply_to_key(key)): tensor.clone() for key, tensor in load_file(path).items()
    }
    _check(factors, weights, path)
    device = next(iter(weights.values())).device
    model, lora = (
        StateDict(sd=tensors, device=device, size=0, dtype={tensor.dtype for tensor in tensors.values()})
        for tensors in (weights, factors)
    )
    return dict(versions.installed().fused(model, LoraStateDictWithStrength(lora, strength), dtype).sd)


def _check(factors: dict[str, torch.Tensor], weights: dict[str, torch.Tensor], path: Path) -> None:
    for key in sorted(factors):
        side = next((side for side in _SIDES if key.endswith(side)), None)
        layer = key.removesuffix(side or "")
        if side is None or any(layer + other not in factors for other in _SIDES):
            raise InputError(f"{path}: {key!r} is no factor of a LoRA with a partner; expected {' and '.join(_SIDES)}")
        if f"{layer}.weight" not in weights:
            raise InputError(f"{path}: layer {layer!r} is not in the transformer; expected a LoRA of this model")
        stored = weights[f"{layer}.weight"].dtype
        if stored != torch.bfloat16:
            raise bad_field(f"{path}: layer {layer!r}", "dtype of its weight", stored, "bfloat16, to merge a LoRA")
