"""A distilled LoRA merged into a copy of the transformer, through diffusers' loader and peft (0.21.2)."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from conformance import guard

guard.install()

import torch  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from conformance.errors import InputError  # noqa: E402
from reference_impl.diffusers_taps import TracedPipeline  # noqa: E402

_PREFIX, _ADAPTER = "diffusion_model.", "distilled"
_HALVES = ("lora_A", "lora_B")


def check_lora(path: Path, pipeline: TracedPipeline) -> None:
    """InputError unless every tensor of a file is a factor of a linear layer of the pipeline's transformer.

    Also for one that has not the shape of one, or is without the other: diffusers alone would leave it out.
    """
    factors = load_file(path)
    if not factors:
        raise InputError(f"{path}: no tensors; expected factors of a LoRA")
    layers = {
        name: module for name, module in pipeline.transformer.named_modules() if isinstance(module, torch.nn.Linear)
    }
    for name, tensor in factors.items():
        stem, _, half = name.removesuffix(".weight").rpartition(".")
        if not name.startswith(_PREFIX) or not name.endswith(".weight") or half not in _HALVES:
            raise InputError(f"{path}: tensor {name!r}; expected '{_PREFIX}<module>.lora_A.weight' or '.lora_B.weight'")
        other = factors.get(f"{stem}.{_HALVES[half == 'lora_A']}.weight")
        if other is None:
            raise InputError(f"{path}: tensor {name!r} is without its other factor")
        (converted,) = pipeline.lora_state_dict({name: tensor})
        layer = layers.get(converted.removeprefix("transformer.").removesuffix(f".{half}.weight"))
        if layer is None:
            raise InputError(f"{path}: tensor {name!r}: the transformer has no such linear layer")
        rank = other.shape[1 if half == "lora_A" else 0] if other.ndim == 2 else None
        expected = (rank, layer.in_features) if half == "lora_A" else (layer.out_features, rank)
        if tuple(tensor.shape) != expected:
            raise InputError(f"{path}: tensor {name!r} is of shape {tuple(tensor.shape)}; expected {expected}")


def merged(pipeline: TracedPipeline, path: Path, strength: float) -> Any:
    """The pipeline's transformer with the LoRA in its weights: a copy, or at strength 0.0 the transformer itself."""
    if strength == 0.0:
        return pipeline.transformer
    transformer = copy.deepcopy(pipeline.transformer)
    holder = TracedPipeline(**pipeline.components | {"transformer": transformer})
    holder.load_lora_weights(
        str(path.parent), weight_name=path.name, adapter_name=_ADAPTER, use_safetensors=True, local_files_only=True
    )
    holder.fuse_lora(components=["transformer"], lora_scale=strength, safe_fusing=False, adapter_names=[_ADAPTER])
    holder.unload_lora_weights()
    return transformer
