"""Defects of what spreads the engine over ranks. On one device these engines are the shipped one.

What shows them: ``tests/unit/test_parallel_mutants.py`` in whole cases; part by part ``test_parallel_tensor.py``,
``test_parallel_cfg.py``, ``test_parallel_sequence.py``, ``test_parallel_ring.py`` and ``test_parallel_vae.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from conformance.case import Guidance
from conformance.defects.variants import variant
from engine import generator
from engine.backends import attend
from engine.layers.feedforward import FeedForward
from engine.layers.rope import Rotary
from engine.models.ltx2.transformer import LTX2Transformer
from engine.models.ltx2.video_vae.tiling import Decode, Spread
from engine.numerics import Numerics
from engine.parallel import cfg, gemma3, ring, sequence, tensor, vae
from engine.parallel.mesh import Mesh
from engine.pipelines import ltx2
from engine.sampling import guidance
from engine.sampling.branches import Spread as BranchSpread

_combine = guidance.combine
_mixed = sequence.attention
_norm_forward = tensor.SharedQKNorm.forward
_on_ranks = generator.on_ranks
_pack_noise = ltx2.pack_noise
_rescale = guidance.rescale
_shard_feed_forward = tensor.shard_feed_forward
_shard_tokens = sequence.shard_tokens
_spread_tiles = vae.spread_over
_taken = sequence.taken


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


def _first_columns(layer: nn.Linear, mesh: Mesh) -> None:
    """The first share of the heads or features, on every rank."""
    size = layer.out_features // mesh.size("tp")
    layer.weight = nn.Parameter(layer.weight[:size].clone(), requires_grad=False)


def _on_ranks_but_the_second(models: ltx2.Models, mesh: Mesh, numerics: Numerics) -> tuple[ltx2.Models, BranchSpread]:
    """The second stage's transformer left whole on every rank: right bits, and nothing gained."""
    made, spread = _on_ranks(models, mesh, numerics)
    return replace(made, second=models.second), spread


def _on_ranks_but_the_text(models: ltx2.Models, mesh: Mesh, numerics: Numerics) -> tuple[ltx2.Models, BranchSpread]:
    """The text encoder left whole on every rank, where the layout cuts it."""
    made, spread = _on_ranks(models, mesh, numerics)
    return replace(made, parts=models.parts), spread


def _in_group(owner: int, mesh: Mesh) -> int:
    return owner


def _from_the_start(x: torch.Tensor, dim: int, mesh: Mesh) -> torch.Tensor:
    """Positions counted from the first token of the rank's own share."""
    return x.narrow(dim, 0, sequence.share(x.shape[dim], mesh).size) if x.ndim == 4 else _taken(x, dim, mesh)


def _padding_seen(*operands: Any, queries: int, keys: int, mesh: Mesh) -> torch.Tensor:
    """By audio that attends to video, which has more tokens."""
    seen = operands[1].shape[1] * sequence.ranks(mesh) if keys > queries else keys
    return _mixed(*operands, queries=queries, keys=seen, mesh=mesh)


def _with_text_shared_out(model: LTX2Transformer, mesh: Mesh) -> None:
    """Text taken for a share of itself, as the keys of video are: those of every rank are gathered, all alike."""
    _shard_tokens(model, mesh)
    for block in model.transformer_blocks:
        for name in ("attn2", "audio_attn2"):
            block.get_submodule(name).kernel = _repeated_keys(mesh)


def _repeated_keys(mesh: Mesh) -> Any:
    def mix(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, backend: str) -> torch.Tensor:
        times = sequence.ranks(mesh)
        masks = None if mask is None else mask.repeat(1, times)
        return attend(q, k.repeat(1, times, 1, 1), v.repeat(1, times, 1, 1), masks, backend)

    return mix


def _noise_by_rank(*inputs: Any) -> dict[str, torch.Tensor]:
    """Every rank of a sequence draws the noise of its own tokens, all from the same seed."""
    noise = _pack_noise(*inputs)
    if not dist.is_initialized():
        return noise
    sizes = {stream: -(-x.shape[1] // dist.get_world_size()) for stream, x in noise.items()}
    return {stream: x[:, torch.arange(x.shape[1]) % sizes[stream]] for stream, x in noise.items()}


def _rescaled_by_rank(guided: torch.Tensor, cond: torch.Tensor, weight: float, numerics: Numerics) -> torch.Tensor:
    """Standard deviations of every rank's own tokens."""
    count = dist.get_world_size() if dist.is_initialized() else 1
    shares = zip(guided.chunk(count, 1), cond.chunk(count, 1), strict=True)
    return torch.cat([_rescale(x, reference, weight, numerics) for x, reference in shares], dim=1)


def _at_its_own_maximum(running: ring.Running, maximum_BHT1: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(maximum_BHT1)


def _own_first(group: dist.ProcessGroup) -> Spread:
    """Tiles of the first rank, then those of the second."""
    spread_tiles = _spread_tiles(group)

    def spread(decode: Decode, tiles: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
        decoded, ranks = list(spread_tiles(decode, tiles)), dist.get_world_size(group)
        return iter([decoded[i] for rank in range(ranks) for i in range(rank, len(decoded), ranks)])

    return spread


sums_dropped = variant("sums-dropped", (tensor, "total", _unsummed))
bias_everywhere = variant("bias-everywhere", (tensor.RowLinear, "forward", _biased_everywhere))
rope_not_sliced = variant("rope-not-sliced", (tensor, "head_share", _first_heads))
norm_rounded_twice = variant("norm-rounded-twice", (tensor.SharedQKNorm, "forward", _rounded_twice))
norm_of_own_heads = variant("norm-of-own-heads", (tensor.SharedQKNorm, "forward", _own_squares))
feed_forward_floored = variant("feed-forward-floored", (tensor, "shard_feed_forward", _floored))
cfg_folded = variant("cfg-folded", (guidance, "combine", _folded))
source_in_group = variant("source-in-group", (cfg, "source", _in_group))
positions_from_the_start = variant("positions-from-the-start", (sequence, "taken", _from_the_start))
padding_seen_in_v2a = variant("padding-seen-in-v2a", (sequence, "attention", _padding_seen))
text_counted_by_every_rank = variant("text-counted-by-every-rank", (sequence, "shard_tokens", _with_text_shared_out))
noise_by_rank = variant("noise-by-rank", (ltx2, "pack_noise", _noise_by_rank))
rescaled_by_rank = variant("rescaled-by-rank", (guidance, "rescale", _rescaled_by_rank))
ring_not_rescaled = variant("ring-not-rescaled", (ring, "rescaling", _at_its_own_maximum))
text_heads_not_shared_out = variant("text-heads-not-shared-out", (gemma3, "cut_outputs", _first_columns))
text_encoder_whole = variant("text-encoder-whole", (generator, "on_ranks", _on_ranks_but_the_text))
second_stage_whole = variant("second-stage-whole", (generator, "on_ranks", _on_ranks_but_the_second))
tiles_as_they_come = variant("tiles-as-they-come", (vae, "spread_over", _own_first))
