"""Defects of what spreads the engine over ranks. On one device these engines are the shipped one.

What shows them: ``tests/unit/test_parallel_tensor.py`` and ``test_parallel_cfg.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
import torch.distributed as dist

from conformance.case import Guidance
from conformance.defects.variants import variant
from engine.layers.feedforward import FeedForward
from engine.layers.rope import Rotary
from engine.numerics import Numerics
from engine.parallel import cfg, tensor
from engine.parallel.mesh import Mesh
from engine.sampling import guidance

_combine = guidance.combine
_norm_forward = tensor.SharedQKNorm.forward
_shard_feed_forward = tensor.shard_feed_forward


def _unsummed(x: torch.Tensor, mesh: Mesh) -> torch.Tensor:
    return x


def _biased_everywhere(self: tensor.RowLinear, x: torch.Tensor) -> torch.Tensor:
    partial = tensor.product(x, self.weight, self._numerics)
    bias = torch.zeros_like(partial) if self.bias is None else self.bias.to(partial.dtype)
    return tensor.total(partial + bias, self._mesh).to(x.dtype)


def _first_heads(rope: Rotary, mesh: Mesh) -> Rotary:
    size = rope.cos_BHTR.shape[1] // mesh.size("tp")
    return replace(rope, cos_BHTR=rope.cos_BHTR[:, :size], sin_BHTR=rope.sin_BHTR[:, :size])


def _rounded_twice(self: tensor.SharedQKNorm, x: torch.Tensor, numerics: Numerics) -> torch.Tensor:
    return _norm_forward(self, x, replace(numerics, qk_norm="rounded-twice"))


def _own_squares(self: tensor.SharedQKNorm, x: torch.Tensor, numerics: Numerics) -> torch.Tensor:
    normed = torch.nn.functional.rms_norm(x.float(), x.shape[-1:], eps=self.eps)
    return (normed * self.weight.float()).to(x.dtype)


def _floored(feed_forward: FeedForward, mesh: Mesh, numerics: Numerics) -> None:
    """A share of 3k features, the rest dropped."""
    _shard_feed_forward(feed_forward, mesh, numerics)
    first, last = feed_forward.net[0].get_submodule("proj"), feed_forward.net[2]
    assert isinstance(first, torch.nn.Linear)
    assert isinstance(last, tensor.RowLinear)
    kept = first.out_features // 3 * 3
    first.weight = torch.nn.Parameter(first.weight[:kept].clone(), requires_grad=False)
    first.bias = torch.nn.Parameter(first.bias[:kept].clone(), requires_grad=False)
    last.weight = torch.nn.Parameter(last.weight[:, :kept].clone(), requires_grad=False)


def _folded(x0: Mapping[str, torch.Tensor], scales: Guidance, numerics: Numerics, dtype: torch.dtype) -> torch.Tensor:
    """Every branch times its coefficient, then the sum: what ranks can add up without seeing each other's x0."""
    if not dist.is_initialized():
        return _combine(x0, scales, numerics, dtype)
    work = dtype if numerics.guider_dtype == "model" else torch.float32
    factors = {"uncond": scales.cfg - 1, "stg": scales.stg, "modality": scales.modality - 1}
    own = 1 + sum(factor for branch, factor in factors.items() if branch in x0)
    guided = own * x0["cond"].to(work)
    for branch, factor in factors.items():
        if branch in x0:
            guided = guided - factor * x0[branch].to(work)
    if scales.rescale > 0:
        guided = guidance.rescale(guided, x0["cond"].to(work), scales.rescale, numerics)
    return guided.to(x0["cond"].dtype)


def _in_group(owner: int, mesh: Mesh) -> int:
    return owner


sums_dropped = variant("sums-dropped", (tensor, "total", _unsummed))
bias_everywhere = variant("bias-everywhere", (tensor.RowLinear, "forward", _biased_everywhere))
rope_not_sliced = variant("rope-not-sliced", (tensor, "head_share", _first_heads))
norm_rounded_twice = variant("norm-rounded-twice", (tensor.SharedQKNorm, "forward", _rounded_twice))
norm_of_own_heads = variant("norm-of-own-heads", (tensor.SharedQKNorm, "forward", _own_squares))
feed_forward_floored = variant("feed-forward-floored", (tensor, "shard_feed_forward", _floored))
cfg_folded = variant("cfg-folded", (guidance, "combine", _folded))
source_in_group = variant("source-in-group", (cfg, "source", _in_group))
