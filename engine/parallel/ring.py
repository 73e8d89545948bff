"""Ring attention: queries stay, blocks of keys and values travel, and the softmax is taken as they come.

Source: Liu et al. 2023, arXiv:2310.01889; the running softmax is that of Milakov and Gimelshein 2018, arXiv:1805.02867.
Legend: B batch, T queries of a rank, S keys of a block, H heads, d head dim.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist

from conformance.errors import UnsupportedCase
from engine import picks
from engine.numerics import Numerics
from engine.parallel.mesh import Mesh


@dataclass(frozen=True, kw_only=True)
class Running:
    """Softmax over the keys so far, float32: the largest score, and relative to it the sums of the weights and of the
    weighted values.
    """

    maximum_BHT1: torch.Tensor
    weights_BHT1: torch.Tensor
    values_BHTd: torch.Tensor


def check(numerics: Numerics) -> None:
    """UnsupportedCase where the ring's own kernel is not what is asked for."""
    for field, value, expected in (("attention", numerics.attention, "sdpa"), ("autocast", numerics.autocast, "off")):
        if value != expected:
            raise UnsupportedCase(f"engine: {field!r} is {value!r}; under ring attention it is {expected!r}")


def attend(q_BTHd: torch.Tensor, k_BSHd: torch.Tensor, v_BSHd: torch.Tensor, *, keys: int, mesh: Mesh) -> torch.Tensor:
    """softmax(q k^T / sqrt(d)) v over the first ``keys`` keys of all ranks of the axis: [B,T,H,d] in q's dtype.

    Every rank brings as many keys; those after ``keys`` are padding. Scores, weights, sums are float32, rounded once.
    """
    picks.record("attention", "ring (running softmax in float32)")
    size, ranks, here = k_BSHd.shape[1], mesh.size("ring"), mesh.index("ring")
    q_BHTd = q_BTHd.transpose(1, 2).float() * q_BTHd.shape[-1] ** -0.5
    running = None
    block = torch.stack((k_BSHd, v_BSHd))
    for hop in range(ranks):
        following = _Hop(block, mesh) if hop < ranks - 1 else None
        # of the blocks, the one of the rank ``hop`` places back has come here
        real = min(max(keys - (here - hop) % ranks * size, 0), size)
        if real > 0:
            k_BHSd, v_BHSd = block[:, :, :real].transpose(2, 3).float()
            own = softmax(q_BHTd, k_BHSd, v_BHSd)
            running = own if running is None else merged(running, own)
        if following is not None:
            block = following.received()
    assert running is not None
    return (running.values_BHTd / running.weights_BHT1).transpose(1, 2).to(q_BTHd.dtype)


def softmax(q_BHTd: torch.Tensor, k_BHSd: torch.Tensor, v_BHSd: torch.Tensor) -> Running:
    """Of one block of keys, from scaled queries."""
    scores_BHTS = q_BHTd @ k_BHSd.transpose(2, 3)
    maximum = scores_BHTS.amax(-1, keepdim=True)
    weights = torch.exp(scores_BHTS - maximum)
    return Running(
        maximum_BHT1=maximum, weights_BHT1=weights.sum(-1, keepdim=True), values_BHTd=torch.matmul(weights, v_BHSd)
    )


def merged(one: Running, other: Running) -> Running:
    """Of the keys of both."""
    maximum = torch.maximum(one.maximum_BHT1, other.maximum_BHT1)
    a, b = rescaling(one, maximum), rescaling(other, maximum)
    return Running(
        maximum_BHT1=maximum,
        weights_BHT1=one.weights_BHT1 * a + other.weights_BHT1 * b,
        values_BHTd=one.values_BHTd * a + other.values_BHTd * b,
    )


def rescaling(running: Running, maximum_BHT1: torch.Tensor) -> torch.Tensor:
    """What its sums are multiplied by, to be relative to a maximum that is no smaller than its own."""
    return torch.exp(running.maximum_BHT1 - maximum_BHT1)


class _Hop:
    """A block on its way to the next rank, another on its way here, while this rank computes."""

    def __init__(self, block: torch.Tensor, mesh: Mesh) -> None:
        group, here, ranks = mesh.group("ring"), mesh.index("ring"), mesh.size("ring")
        to, source = (dist.get_global_rank(group, place % ranks) for place in (here + 1, here - 1))
        self._block = torch.empty_like(block)
        self._work = dist.batch_isend_irecv(
            [dist.P2POp(dist.isend, block, to, group), dist.P2POp(dist.irecv, self._block, source, group)]
        )

    def received(self) -> torch.Tensor:
        for work in self._work:
            work.wait()
        return self._block
