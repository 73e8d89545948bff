"""Who is closer to the truth, where engine and reference differ? Pure statistics over two outputs and the truth.

With e the errors of candidate and reference against the truth, d their difference, rms over all elements:

1. NOISE            rms(d) is below ``NEAR`` of the smaller error. Then the errors' ratio is within 1 +- ``NEAR``.
2. REGRESSION       the candidate's error is larger than the reference's by more than ``MARGIN``, or is systematic
                    where the reference's is not.
3. REFERENCE_WORSE  the same with the sides swapped.
4. BENIGN_REROUND   otherwise: both equally far, and unbiased as far as the other.

Larger and systematic are asked with ``Z`` standard errors to spare. These come from a jackknife over groups of tokens,
not from the count of elements: errors within a token are not independent.

An error is systematic by its bias: the cosine between it and a constant, or between it and the truth (a wrong scale),
whichever is larger. Rounding to nearest has none; a bias of 1/4 outgrows the noise after 16 steps that add up, since it
grows with their number and noise with its root.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

NEAR = 0.1
MARGIN = 0.15
BIAS = 0.25
Z = 3.0
GROUPS = 32
WORST_FIRST = ("REGRESSION", "REFERENCE_WORSE", "BENIGN_REROUND", "NOISE")
_MEANING = {
    "REGRESSION": "the candidate is farther from the truth",
    "REFERENCE_WORSE": "the reference is farther from the truth",
    "BENIGN_REROUND": "both are equally far from the truth, in other directions",
    "NOISE": "the difference is small beside either one's distance from the truth",
}
# Sums over a group of tokens of: e_c^2, e_r^2, e_c, e_r, e_c*t, e_r*t, t^2, d^2, elements.
_CC, _RR, _C, _R, _CT, _RT, _TT, _DD, _N = range(9)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """candidate_error, reference_error: relative L2 to the truth. bias: the candidate's, see the module. rms_ratio: of
    the errors, candidate over reference. output: what it is about.
    """

    finding: str
    output: str
    candidate_error: float
    reference_error: float
    bias: float
    rms_ratio: float
    sentence: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def judge(
    output: str,
    candidate: torch.Tensor,
    reference: torch.Tensor,
    truth: torch.Tensor,
    reference_truth: torch.Tensor | None = None,
) -> Finding:
    """The finding about one output [B,T,C] (any float dtype, equal shapes).

    reference_truth: the truth for the reference, where it was made from other inputs; then d is of the errors.
    """
    sums_GS = _sums(candidate, reference, truth, truth if reference_truth is None else reference_truth)
    whole = sums_GS.sum(0)
    ratio, bias_c, bias_r = _log_ratio(whole), _bias(whole, _CC, _C, _CT), _bias(whole, _RR, _R, _RT)
    apart = [_log_ratio(x) for x in _without_each(sums_GS)]
    more = [abs(_bias(x, _CC, _C, _CT)) - abs(_bias(x, _RR, _R, _RT)) for x in _without_each(sums_GS)]
    farther, biased = Z * _jackknife(apart), Z * _jackknife(more)
    if whole[_DD] < NEAR**2 * min(whole[_CC], whole[_RR]):
        name = "NOISE"
    elif ratio - farther > math.log1p(MARGIN) or (abs(bias_c) - abs(bias_r) - biased > BIAS and ratio > -farther):
        name = "REGRESSION"
    elif ratio + farther < -math.log1p(MARGIN) or (abs(bias_r) - abs(bias_c) - biased > BIAS and ratio < farther):
        name = "REFERENCE_WORSE"
    else:
        name = "BENIGN_REROUND"
    errors = [math.sqrt(whole[index] / whole[_TT]) if whole[_TT] else math.inf for index in (_CC, _RR)]
    numbers = f"{output}: {errors[0]:.3g} and {errors[1]:.3g} from the truth (candidate, reference; relative L2)"
    more_said = f"ratio {math.exp(ratio):.3g} +- {farther:.2g}, bias {bias_c:.2g} and {bias_r:.2g}"
    return Finding(
        finding=name,
        output=output,
        candidate_error=errors[0],
        reference_error=errors[1],
        bias=bias_c,
        rms_ratio=math.exp(ratio),
        sentence=f"{_MEANING[name]}. {numbers}, {more_said}",
    )


def worst(findings: Iterable[Finding]) -> Finding:
    """The one that counts for a case, of those about its outputs: a regression of one is a regression. Of several, the
    one whose errors differ most."""
    return min(findings, key=lambda found: (WORST_FIRST.index(found.finding), -abs(_log(found.rms_ratio))))


def judge_all(
    candidate: Mapping[str, torch.Tensor],
    reference: Mapping[str, torch.Tensor],
    truth: Mapping[str, torch.Tensor],
    reference_truth: Mapping[str, torch.Tensor] | None = None,
) -> Finding | None:
    """The worst finding over the outputs that all three have and the two differ in; None when there are none."""
    names = [name for name in truth if name in candidate and name in reference]
    names = [name for name in names if not torch.equal(candidate[name], reference[name])]
    other = truth if reference_truth is None else reference_truth
    found = [judge(name, candidate[name], reference[name], truth[name], other[name]) for name in names]
    return worst(found) if found else None


def _sums(
    candidate: torch.Tensor, reference: torch.Tensor, truth: torch.Tensor, reference_truth: torch.Tensor
) -> np.ndarray:
    """[groups of tokens, sums]"""
    tensors = (candidate, reference, truth, reference_truth)
    c, r, t, u = (x.detach().cpu().double().flatten(0, 1).numpy() for x in tensors)
    e_c, e_r = c - t, r - u
    terms = (e_c**2, e_r**2, e_c, e_r, e_c * t, e_r * u, t**2, (e_c - e_r) ** 2, np.ones_like(t))
    by_token = np.stack([term.sum(-1) for term in terms], axis=1)
    groups = np.array_split(by_token, min(GROUPS, len(by_token)))
    return np.stack([group.sum(0) for group in groups])


def _without_each(sums_GS: np.ndarray) -> list[np.ndarray]:
    return [sums_GS.sum(0) - group for group in sums_GS]


def _log_ratio(sums: np.ndarray) -> float:
    """Logarithm of the errors' rms, candidate over reference; an error of 0 counts as the smallest there is."""
    tiny = np.finfo(np.float64).tiny
    return 0.5 * math.log(max(sums[_CC], tiny) / max(sums[_RR], tiny))


def _bias(sums: np.ndarray, square: int, plain: int, along: int) -> float:
    """The larger of two cosines: of the error with a constant, and with the truth."""
    if not sums[square] > 0:
        return 0.0
    constant = sums[plain] / math.sqrt(sums[square] * sums[_N])
    scale = sums[along] / math.sqrt(sums[square] * sums[_TT]) if sums[_TT] else 0.0
    return float(max(constant, scale, key=abs))


def _log(ratio: float) -> float:
    return math.log(ratio) if 0 < ratio < math.inf else math.inf


def _jackknife(values: list[float]) -> float:
    """Standard error of a statistic, from its values without each of the groups; infinite for fewer than two."""
    if len(values) < 2:
        return math.inf
    spread = np.asarray(values) - np.mean(values)
    return math.sqrt((len(values) - 1) / len(values) * float((spread**2).sum()))
