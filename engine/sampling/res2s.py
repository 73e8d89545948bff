"""The res_2s sampler: a second-order exponential step in log noise level, with noise renewed at midpoint and end.

Refined exponential solver: Zhang et al. 2023, arXiv:2308.02157 (algorithm 1 with c2 = 1/2). Order of operations: the
``res2s`` loop of ltx-pipelines 1.0.0 (2026-03). Writing s for the level and x0 for the model's estimate, the state
obeys dx/d(-log s) = x0 - x, whose linear part is integrated exactly. All of a step is float64; what the model sees,
and what a step ends with, has the dtype of the state. Legend: B batch, T tokens of a stream, C latent channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch

from conformance.errors import bad_field
from engine.numerics import Numerics
from engine.sampling.given import Given, restore

STREAMS = ("video", "audio")
# The level before the final 0, where the logarithm ends: the model is asked once more there, and its x0 is the result.
LAST_LEVEL = 0.0011
_RENEWED = 0.5  # standard deviation of the renewed noise over the level it is renewed at
_ANCHOR_ROUNDS, _ANCHOR_STEP, _ANCHOR_LEVEL = 100, 0.5, 0.03
_TAYLOR = 1e-10

States = Mapping[str, torch.Tensor]
# (step, half, state by stream, level) -> x0 by stream. half: 0 at a step's start, 1 at its midpoint
Evaluate = Callable[[int, int, States, torch.Tensor], States]
# shape [B,T,C] -> raw normal numbers of it, float64 on the CPU
Draw = Callable[[tuple[int, ...]], torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Coefficients:
    """h: step in -log s. a21: weight of the first estimate at the midpoint; b1, b2: of both at the end, all times h."""

    h: float
    a21: float
    b1: float
    b2: float


def coefficients(levels: torch.Tensor, numerics: Numerics) -> list[Coefficients]:
    """One for each two neighbours of ``levels`` [N+1], which are above 0.

    float64: Python floats from the plain formulas. float32: float32 tensors and expm1, as the plain formulas would lose
    most digits there.
    """
    if numerics.res2s_coefficients == "float32":
        single = levels.detach().cpu().float()
        steps = -torch.log(single[1:] / single[:-1])
        return [_coefficients(h, _phi_float32) for h in steps.tolist()]
    double = levels.detach().cpu().double()
    return [_coefficients(h, _phi) for h in (-torch.log(double[1:] / double[:-1])).tolist()]


def _coefficients(h: float, phi: Callable[[int, float], float]) -> Coefficients:
    b2 = phi(2, -h) / 0.5
    return Coefficients(h=h, a21=0.5 * phi(1, -h * 0.5), b1=phi(1, -h) - b2, b2=b2)


def _phi(order: int, z: float) -> float:
    """(e^z - 1) / z of order 1, (e^z - 1 - z) / z^2 of order 2."""
    if abs(z) < _TAYLOR:
        return 1 / order
    return (math.exp(z) - (1 if order == 1 else 1 + z)) / z**order


def _phi_float32(order: int, z: float) -> float:
    at = torch.tensor(z, dtype=torch.float32)
    grown = torch.expm1(at)
    return float(grown / at if order == 1 else (grown - at) / at**2)


def standardised(raw_BTC: torch.Tensor, dtype: torch.dtype, numerics: Numerics) -> torch.Tensor:
    """Noise of mean 0 and deviation 1, over all numbers and then within each sample; float64.

    ``sde_noise_dtype`` model: rounded to ``dtype`` on the way.
    """
    noise = (raw_BTC - raw_BTC.mean()) / raw_BTC.std()
    noise = noise - noise.mean(dim=(-2, -1), keepdim=True)
    noise = noise / noise.std(dim=(-2, -1), keepdim=True)
    return noise.to(dtype).double() if numerics.sde_noise_dtype == "model" else noise


def renew(
    start: torch.Tensor, end: torch.Tensor, now: torch.Tensor, later: torch.Tensor, noise: torch.Tensor
) -> torch.Tensor:
    """``end``, the noise-free step from ``start``, with a part of its noise replaced by ``noise``; all float64.

    now, later: the levels of ``start`` and ``end``, scalars on their device. The arithmetic among them is in their own
    dtype.
    """
    fresh = later * _RENEWED
    kept = (later**2 - fresh**2).sqrt()
    signal = (1 - later) + kept
    slope = (start - end) / (now - later)
    clean = start - now * slope
    return signal * (clean + kept / signal * slope) + fresh * noise


def refined(middle: torch.Tensor, x0: torch.Tensor, anchor: torch.Tensor, weight: float) -> torch.Tensor:
    """The start from which a step of ``weight`` towards ``x0`` ends at the noised ``middle``, by fixed-point rounds."""
    for _ in range(_ANCHOR_ROUNDS):
        anchor = middle - weight * (x0 - anchor)
    return anchor


def _checked(sigmas: torch.Tensor) -> torch.Tensor:
    """The levels without the final 0 and with ``LAST_LEVEL``, float32 [N+1]."""
    values = sigmas.tolist()
    falling = all(now > later for now, later in pairwise(values))
    if len(values) < 2 or not falling or values[-1] != 0 or values[-2] <= LAST_LEVEL:
        raise bad_field("res2s", "sigmas", values, f"falling levels above {LAST_LEVEL}, then 0")
    return torch.cat((sigmas[:-1], torch.tensor([LAST_LEVEL], dtype=sigmas.dtype, device=sigmas.device)))


def sample(
    evaluate: Evaluate,
    state: States,
    sigmas: torch.Tensor,
    *,
    draw_step: Draw,
    draw_substep: Draw,
    numerics: Numerics,
    given: Mapping[str, Given] | None = None,
) -> dict[str, torch.Tensor]:
    """Denoise ``state`` [B,T,C] of both streams along ``sigmas`` float32 [N+1], the last 0, in 2N+1 evaluations.

    evaluate: gets states in their dtype and a scalar level: float32 at the N starts and at ``LAST_LEVEL``, which is
    step N; float64 at the midpoints. Under ``midpoint_dtype`` float64 the midpoint's state comes unrounded, in float64:
    the model's input is rounded from it, x0 is computed from it. given: by stream; the given part of every x0 and of
    every noised state is restored. Each draw is of video, then of audio. Returns states in their dtype. InputError for
    levels that do not fall to 0.
    """
    levels = _checked(sigmas)
    tokens = given or {}
    now = dict(state)
    for step, weights in enumerate(coefficients(levels, numerics)):
        loop = _Step(step, weights, levels[step], levels[step + 1], numerics, tokens)
        now = loop.run(evaluate, now, draw_step, draw_substep)
    last = evaluate(len(levels) - 1, 0, now, levels[-1])
    return {stream: restore(last[stream], tokens.get(stream)).to(state[stream].dtype) for stream in STREAMS}


@dataclass(frozen=True)
class _Step:
    index: int
    weights: Coefficients
    now: torch.Tensor
    later: torch.Tensor
    numerics: Numerics
    given: Mapping[str, Given]

    def run(self, evaluate: Evaluate, state: States, draw_step: Draw, draw_substep: Draw) -> dict[str, torch.Tensor]:
        c, now, later = self.weights, self.now.double(), self.later.double()
        between = torch.sqrt(now * later)
        first = self._x0(evaluate(self.index, 0, state, self.now))
        anchor, middle, after = {}, {}, {}
        for stream in STREAMS:
            start = state[stream].double()
            end = start + c.h * c.a21 * (first[stream] - start)
            middle[stream] = self._noised(stream, state, start, end, now, between, draw_substep)
            anchor[stream] = start
            if c.h < _ANCHOR_STEP and now > _ANCHOR_LEVEL:
                anchor[stream] = refined(middle[stream], first[stream], start, c.h * c.a21)
        if self.numerics.midpoint_dtype == "model":
            seen = {stream: middle[stream].to(state[stream].dtype) for stream in STREAMS}
        else:
            seen = middle
        second = self._x0(evaluate(self.index, 1, seen, between))
        if self.numerics.sde_levels_dtype == "float32":
            now, later = self.now, self.later
        for stream in STREAMS:
            start = anchor[stream]
            end = start + c.h * (c.b1 * (first[stream] - start) + c.b2 * (second[stream] - start))
            after[stream] = self._noised(stream, state, start, end, now, later, draw_step)
        return {stream: after[stream].to(state[stream].dtype) for stream in STREAMS}

    def _x0(self, estimates: States) -> dict[str, torch.Tensor]:
        return {stream: restore(estimates[stream], self.given.get(stream)).double() for stream in STREAMS}

    def _noised(
        self,
        stream: str,
        state: States,
        start: torch.Tensor,
        end: torch.Tensor,
        now: torch.Tensor,
        later: torch.Tensor,
        draw: Draw,
    ) -> torch.Tensor:
        raw = draw(tuple(start.shape)).to(start.device)
        noise = standardised(raw, state[stream].dtype, self.numerics)
        return restore(renew(start, end, now, later, noise), self.given.get(stream))
