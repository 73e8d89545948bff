"""Tensor parallelism: layers cut over the ranks of the ``tp`` axis.

Source: Shoeybi et al. 2019, arXiv:1909.08053. Column-parallel layers compute a share of the output features and talk to
nobody; row-parallel layers take a share of the input features and sum their products over the ranks.
Legend: B batch, T tokens, I O input and output features, D inner width of attention, D' the rank's share of it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional

from conformance.errors import bad_field
from engine.layers.attention import Attention
from engine.layers.feedforward import FeedForward, GeluProjection
from engine.layers.norm import QKNorm
from engine.layers.rope import Rotary
from engine.numerics import Numerics
from engine.parallel.mesh import Mesh
from engine.taps import record_whole


def share(x: torch.Tensor, dim: int, mesh: Mesh) -> torch.Tensor:
    """This rank's part of ``x`` along ``dim``, which the axis divides, in memory of its own: strides move bits."""
    size = x.shape[dim] // mesh.size("tp")
    return x.narrow(dim, mesh.index("tp") * size, size).clone(memory_format=torch.contiguous_format)


def head_share(rope: Rotary, mesh: Mesh) -> Rotary:
    """The tables of this rank's heads: every head has its own frequencies."""
    size = rope.cos_BHTR.shape[1] // mesh.size("tp")
    start = mesh.index("tp") * size
    return replace(rope, cos_BHTR=rope.cos_BHTR.narrow(1, start, size), sin_BHTR=rope.sin_BHTR.narrow(1, start, size))


def total(x: torch.Tensor, mesh: Mesh) -> torch.Tensor:
    """The sum of ``x`` over the axis, in x's dtype, the same bits on every rank; ``x`` is overwritten."""
    dist.all_reduce(x, group=mesh.group("tp"))
    return x


def gathered(x: torch.Tensor, mesh: Mesh) -> torch.Tensor:
    """The parts of all ranks one after the other along the last axis."""
    parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(mesh.size("tp"))]
    dist.all_gather(parts, x.contiguous(), group=mesh.group("tp"))
    return torch.cat(parts, dim=-1)


def check_divides(where: str, field: str, size: int, mesh: Mesh) -> None:
    """InputError unless the axis divides ``size``: a floored share would drop the rest."""
    if size % mesh.size("tp"):
        raise bad_field(where, field, size, f"a multiple of tp, which is {mesh.size('tp')}")


def cut_outputs(layer: nn.Linear, mesh: Mesh) -> None:
    """Column-parallel in place: weight [O/tp,I], bias [O/tp]; the output is the rank's share and stays there."""
    layer.weight = nn.Parameter(share(layer.weight, 0, mesh), requires_grad=False)
    if layer.bias is not None:
        layer.bias = nn.Parameter(share(layer.bias, 0, mesh), requires_grad=False)
    layer.out_features = layer.weight.shape[0]


def product(x: torch.Tensor, weight_OI: torch.Tensor, numerics: Numerics) -> torch.Tensor:
    """A rank's x W^T [..,O], in the dtype in which ranks are summed. Weights may be held narrow."""
    work = torch.float32 if numerics.row_reduce_dtype == "float32" else x.dtype
    return functional.linear(x.to(work), weight_OI.to(x.dtype).to(work))


def finished(summed: torch.Tensor, bias_O: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor:
    """The sum over ranks with the bias, which is added once, as ``dtype``; rounded once if the sum is float32."""
    return (summed if bias_O is None else summed + bias_O.to(dtype)).to(dtype)


class RowLinear(nn.Module):
    """A row-parallel linear layer: share of the input [..,I/tp] -> whole output [..,O] on every rank, in x's dtype.

    ``row_reduce_dtype`` float32 rounds once, after the bias, as the product of one device does; ``model`` rounds the
    product of every rank, their sum, and the sum with the bias.
    """

    def __init__(self, full: nn.Linear, mesh: Mesh, numerics: Numerics) -> None:
        super().__init__()
        self.weight = nn.Parameter(share(full.weight, 1, mesh), requires_grad=False)
        self.bias = full.bias
        self._mesh, self._numerics = mesh, numerics

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return finished(total(product(x, self.weight, self._numerics), self._mesh), self.bias, x.dtype)


class SharedQKNorm(nn.Module):
    """``QKNorm`` over all heads of all ranks: [B,T,D'] -> [B,T,D'], the float32 sums of squares summed over ranks."""

    def __init__(self, full: QKNorm, mesh: Mesh) -> None:
        super().__init__()
        assert full.eps is not None
        self.weight = nn.Parameter(share(full.weight, 0, mesh), requires_grad=False)
        self.eps, self._mesh = full.eps, mesh

    def forward(self, x: torch.Tensor, numerics: Numerics) -> torch.Tensor:
        width = x.shape[-1] * self._mesh.size("tp")
        squares = total(x.float().square().sum(-1, keepdim=True), self._mesh)
        normed = x.float() * torch.rsqrt(squares / width + self.eps)
        if numerics.qk_norm == "rounded-once":
            return (normed * self.weight.float()).to(x.dtype)
        return normed.to(x.dtype) * self.weight


def check_attention(where: str, attention: Attention, mesh: Mesh) -> None:
    """InputError when the axis does not divide the heads."""
    check_divides(where, "heads", attention.heads, mesh)


def shard_attention(attention: Attention, mesh: Mesh, numerics: Numerics) -> None:
    """In place: this rank's heads; rotary tables arrive whole and are cut here. Its output is whole."""
    attention.heads //= mesh.size("tp")
    for layer in (attention.to_q, attention.to_k, attention.to_v, attention.to_gate_logits):
        if layer is not None:
            cut_outputs(layer, mesh)
    for name in ("norm_q", "norm_k"):
        norm = SharedQKNorm(getattr(attention, name), mesh)
        record_whole(norm, lambda x: gathered(x, mesh))
        setattr(attention, name, norm)
    out = attention.to_out[0]
    assert isinstance(out, nn.Linear)
    attention.to_out[0] = RowLinear(out, mesh, numerics)

    def cut_ropes(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        ropes = {name: kwargs[name] for name in ("query_rope", "key_rope") if kwargs.get(name) is not None}
        return args, kwargs | {name: head_share(rope, mesh) for name, rope in ropes.items()}

    attention.register_forward_pre_hook(cut_ropes, with_kwargs=True)


def check_feed_forward(where: str, feed_forward: FeedForward, mesh: Mesh) -> None:
    """InputError when the axis does not divide the hidden features."""
    check_divides(f"{where}.net.0.proj", "out_features", _linears(feed_forward)[0].out_features, mesh)


def shard_feed_forward(feed_forward: FeedForward, mesh: Mesh, numerics: Numerics) -> None:
    """In place: this rank's hidden features, through the activation to the sum over ranks. Its output is whole."""
    first, last = _linears(feed_forward)
    cut_outputs(first, mesh)
    feed_forward.net[2] = RowLinear(last, mesh, numerics)


def _linears(feed_forward: FeedForward) -> tuple[nn.Linear, nn.Linear]:
    gelu, last = feed_forward.net[0], feed_forward.net[2]
    assert isinstance(gelu, GeluProjection)
    assert isinstance(last, nn.Linear)
    return gelu.proj, last
