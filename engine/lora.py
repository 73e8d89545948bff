"""Low-rank adapters (Hu et al. 2021, arXiv:2106.09685) of the LTX-2 family, merged into weights at load.

A file has two factors a linear layer, A [R,I] and B [O,R]; the layer's weight [O,I] becomes W + strength * B@A. Names
are the official ones (``diffusion_model.<layer>.lora_A.weight``, released LoRAs of Lightricks/LTX-2), or those of the
diffusers layout (``transformer.<layer>.lora_A.weight``).
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from conformance.errors import InputError, bad_field
from conformance.tensorfile import read_header
from engine.models.ltx2 import mapping
from engine.numerics import Numerics

M = TypeVar("M", bound=nn.Module)
DTYPES = (torch.bfloat16, torch.float32)
_KEY = re.compile(r"(?P<layer>.+)\.lora_(?P<side>[AB])\.weight")
_DIFFUSERS = ("transformer", "connectors")
# where diffusers 0.42 writes ranks and alphas
_METADATA = "lora_adapter_metadata"


@dataclass(frozen=True, kw_only=True)
class Factors:
    """a_RI and b_OR of one layer, on the CPU and of one of ``DTYPES``."""

    a_RI: torch.Tensor
    b_OR: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class Lora:
    """Factors by component (``transformer``, ``connectors``) and name of the layer in the diffusers layout."""

    path: Path
    layers: Mapping[str, Mapping[str, Factors]]


def read(path: Path) -> Lora:
    """Every layer of a file.

    InputError: the file is missing, truncated or no safetensors; it has no tensors, a name that is not known, a factor
    without its partner, factors that do not fit each other, another dtype than ``DTYPES``, or an alpha that is not the
    rank (factors are taken to contain their scale, as released files have it).
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            # copies: a tensor mapped from a file can lie unaligned, with other last bits of a product on a CPU
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118 - not a mapping
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be read as safetensors: {str(error).splitlines()[0]}") from None
    if not tensors:
        raise InputError(f"{path}: no tensors; expected a LoRA")
    _check_scale(path, metadata.get(_METADATA))
    sides: dict[tuple[str, str], dict[str, str]] = {}
    for key in sorted(tensors):
        component, layer, side = _place(path, key)
        if side in sides.setdefault((component, layer), {}):
            raise InputError(f"{path}: {key!r} and {sides[component, layer][side]!r} are of one layer")
        sides[component, layer][side] = key
    layers: dict[str, dict[str, Factors]] = {}
    for (component, layer), keys in sides.items():
        layers.setdefault(component, {})[layer] = _factors(path, keys, tensors)
    return Lora(path=path, layers=layers)


def check(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """By its header alone: is the file a LoRA of a transformer with weights of these ``shapes``?

    InputError names the first layer that the transformer has not, or the first factor of another shape.
    """
    for key, factor in sorted(read_header(path, str(path))[0].items()):
        component, layer, side = _place(path, key)
        if component != "transformer":
            continue
        weight = shapes.get(f"{layer}.weight")
        if weight is None:
            raise InputError(f"{path}: layer {layer!r} is not in the transformer; expected a LoRA of this model")
        axis = 1 if side == "A" else 0
        if len(factor.shape) != 2 or factor.shape[axis] != weight[axis]:
            raise InputError(f"{path}: {key!r} is of shape {factor.shape}; expected one for a weight of {weight}")


def _check_scale(path: Path, text: str | None) -> None:
    if text is None:
        return
    try:
        config = json.loads(text)
        assert isinstance(config, dict)
    except (ValueError, AssertionError):
        raise InputError(f"{path}: metadata {_METADATA!r} is no JSON object") from None
    for key, alpha in sorted(config.items()):
        head, _, name = key.rpartition(".")
        if name in ("lora_alpha", "alpha_pattern"):
            rank = config.get(f"{head}.{'r' if name == 'lora_alpha' else 'rank_pattern'}")
            if alpha != rank:
                raise bad_field(
                    f"{path}: metadata", key, alpha, f"the rank, {rank!r}: factors that contain their scale"
                )
        elif name in ("use_dora", "use_rslora", "lora_bias") and alpha:
            raise bad_field(f"{path}: metadata", key, alpha, "false")


def _place(path: Path, key: str) -> tuple[str, str, str]:
    """Component, layer and side of a stored name."""
    match = _KEY.fullmatch(key)
    root, _, rest = match["layer"].partition(".") if match else ("", "", "")
    if match and root in _DIFFUSERS and rest:
        return root, rest, match["side"]
    if match and root in ("diffusion_model", "text_embedding_projection"):
        official = f"model.{match['layer']}" if root == "diffusion_model" else match["layer"]
        try:
            component, name = mapping.diffusers_name(f"{official}.weight")
            return component, name.removesuffix(".weight"), match["side"]
        except InputError:
            pass
    raise InputError(
        f"{path}: {key!r} is not known; expected diffusion_model.<layer>.lora_A.weight and lora_B.weight of LTX-2 or "
        "LTX-2.3, or the same under transformer."
    )


def _factors(path: Path, keys: Mapping[str, str], tensors: Mapping[str, torch.Tensor]) -> Factors:
    if len(keys) == 1:
        ((side, key),) = keys.items()
        raise InputError(f"{path}: {key!r} has no lora_{'B' if side == 'A' else 'A'}.weight")
    a, b = tensors[keys["A"]], tensors[keys["B"]]
    for key, tensor in ((keys["A"], a), (keys["B"], b)):
        if tensor.dtype not in DTYPES or tensor.dtype != a.dtype:
            raise bad_field(
                f"{path}: tensor {key!r}", "dtype", tensor.dtype, f"one of {DTYPES}, the same for both factors"
            )
    if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1]:
        raise InputError(
            f"{path}: {keys['A']!r} of shape {tuple(a.shape)} and B of {tuple(b.shape)} have no common rank"
        )
    return Factors(a_RI=a, b_OR=b)


def delta(factors: Factors, strength: float, weight: torch.Tensor, numerics: Numerics) -> torch.Tensor:
    """strength * B@A [O,I] for ``weight`` [O,I], in its dtype.

    ``lora_delta_dtype`` model: B*strength, then the product, each rounded to the dtype of the file (ltx-core 1.0.0).
    float32: the factors rounded to the dtype of the weight, their product and its scaling in float32 (peft 0.21 on a
    CPU).
    """
    a, b = factors.a_RI.to(weight.device), factors.b_OR.to(weight.device)
    if numerics.lora_delta_dtype == "model":
        return ((b * strength) @ a).to(weight.dtype)
    a, b = a.to(weight.dtype), b.to(weight.dtype)
    return ((b.float() @ a.float()) * strength).to(weight.dtype)


def added(factors: Factors, strength: float, weight: torch.Tensor, numerics: Numerics) -> torch.Tensor:
    """``weight`` [O,I] with strength * B@A added, in its dtype, in which the sum is taken.

    ``lora_delta_dtype`` bfloat16: factors, B*strength, product and sum are rounded to it (ltx-core 1.2.0).
    """
    if numerics.lora_delta_dtype != "bfloat16":
        return weight + delta(factors, strength, weight, numerics)
    a, b = (factor.to(weight.device, torch.bfloat16) for factor in (factors.a_RI, factors.b_OR))
    return (weight + (b * strength) @ a).to(torch.bfloat16).to(weight.dtype)


def merged(module: M, lora: Lora, strength: float, numerics: Numerics, component: str = "transformer") -> M:
    """A copy of ``module`` with the layers of ``component`` merged; all other tensors are shared with ``module``.

    ``module`` stays as it was, so that another strength starts from it
    again. InputError, before any work, names the
    first layer that ``module`` has not and the first of another shape.
    """
    layers = lora.layers.get(component, {})
    weights = module.state_dict()
    where = f"{lora.path}: {component}"
    if not layers:
        raise InputError(f"{where}: no layer; expected a LoRA of it")
    for name in sorted(layers):
        shape = (layers[name].b_OR.shape[0], layers[name].a_RI.shape[1])
        if f"{name}.weight" not in weights:
            raise InputError(
                f"{where}: layer {name!r} is not in {type(module).__name__}; expected a LoRA of this model"
            )
        if shape != tuple(weights[f"{name}.weight"].shape):
            expected = tuple(weights[f"{name}.weight"].shape)
            raise InputError(f"{where}: layer {name!r} is of shape {shape}; expected {expected}")
    shared = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    copied = copy.deepcopy(module, shared)
    changed = {}
    for name, factors in layers.items():
        weight = weights[f"{name}.weight"]
        changed[f"{name}.weight"] = added(factors, strength, weight, numerics)
    copied.load_state_dict(changed, strict=False, assign=True)
    return copied
