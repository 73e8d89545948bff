"""Seeded values for every parameter and persistent buffer of a module, the same bits on every machine.

Normal numbers are sums of eight random bytes (Irwin-Hall), taken in integers and rounded to bfloat16: no libm and no
vector unit has a say in them. Each tensor has its own generator, seeded by its name, so that order does not matter.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence

import torch
from torch import nn
from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm

SEED = 20
_BYTES = 8
_MEAN, _STD = _BYTES * 127.5, math.sqrt(_BYTES * (256**2 - 1) / 12)
_TABLES = ("scale_shift_table", "alpha", "beta")  # suffixes; alpha and beta are logarithms


def _generator(name: str) -> torch.Generator:
    seed = hashlib.sha256(f"{SEED}/{name}".encode()).digest()[:8]
    return torch.Generator("cpu").manual_seed(int.from_bytes(seed, "little") >> 1)


def normal(name: str, shape: Sequence[int], std: float, mean: float = 0.0) -> torch.Tensor:
    """Normal numbers of any shape, bfloat16; ``name`` is the seed."""
    limits = torch.iinfo(torch.int64)
    words = torch.randint(limits.min, limits.max, (math.prod(shape),), generator=_generator(name))
    sums = words.view(torch.uint8).view(-1, _BYTES).sum(-1)
    return ((sums.double() - _MEAN) * (std / _STD) + mean).reshape(*shape).bfloat16()


def uniform(name: str, shape: Sequence[int], low: float, high: float) -> torch.Tensor:
    """Uniform numbers of any shape, bfloat16; ``name`` is the seed."""
    steps = torch.randint(0, 2**16 + 1, tuple(shape), generator=_generator(name))
    return (steps.double() * ((high - low) / 2**16) + low).bfloat16()


def fan_in(module: nn.Module) -> float:
    """Products summed into one output of a linear or convolution layer."""
    weight = module.weight
    assert isinstance(weight, torch.Tensor)
    if isinstance(module, nn.ConvTranspose1d):  # [in, out, K]; an output sees every stride-th tap
        return weight.shape[0] * weight.shape[2] / module.stride[0]
    return math.prod(weight.shape[1:])


def _value(module: nn.Module, name: str, leaf: str, shape: Sequence[int], gain: float) -> torch.Tensor:
    if leaf.endswith(_TABLES):
        return normal(name, shape, 0.3)
    if leaf == "learnable_registers":
        return uniform(name, shape, -1.0, 1.0)
    if leaf == "latents_mean":
        return normal(name, shape, 0.3)
    if leaf == "latents_std":
        return uniform(name, shape, 0.6, 1.4)
    if leaf == "bias":
        return normal(name, shape, 0.1 * gain)
    if isinstance(module, Gemma3RMSNorm):  # multiplies by 1 + weight
        return normal(name, shape, 0.1)
    if isinstance(module, nn.RMSNorm | nn.LayerNorm | nn.GroupNorm):
        return normal(name, shape, 0.1, mean=1.0)
    if isinstance(module, nn.Embedding):
        return normal(name, shape, shape[1] ** -0.5)
    if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.ConvTranspose1d):
        return normal(name, shape, gain * fan_in(module) ** -0.5)
    if leaf == "mm_input_projection_weight":
        return normal(name, shape, shape[0] ** -0.5)
    raise ValueError(f"no rule fills {name!r} of {type(module).__name__}")


def fill(model: nn.Module, label: str, *, gains: Mapping[str, float] | None = None, keep: Sequence[str] = ()) -> None:
    """Give every parameter and persistent buffer of ``model`` its value, in bfloat16 and in place.

    label: what names are prefixed with to be seeds. gains: factor on the weight and bias of layers by module name.
    keep: names of buffers that are constants of the architecture: they are rounded, not drawn. ValueError for a tensor
    that no rule covers and for a gain that no layer takes.
    """
    left = dict(gains or {})
    done: set[int] = set()
    for path, module in model.named_modules():
        gain = left.pop(path, 1.0)
        buffers = {
            key: value for key, value in module._buffers.items() if key not in module._non_persistent_buffers_set
        }
        for leaf, tensor in {**module._parameters, **buffers}.items():
            if tensor is None or id(tensor) in done:  # tied weights have one value
                continue
            done.add(id(tensor))
            name = f"{label}/{path}.{leaf}"
            drawn = leaf not in keep
            tensor.data = _value(module, name, leaf, tensor.shape, gain) if drawn else tensor.data.bfloat16()
    if left:
        raise ValueError(f"no module is called {sorted(left)[0]!r}")
