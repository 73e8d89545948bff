"""Where two traces part: the first tap that differs, and how the latents' error grows from step to step."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Any

import torch

from conformance.generator import Sample, Tap
from conformance.metrics import REGISTRY
from conformance.results import Divergence, StepResult

STREAMS = ("video", "audio")
_LATENTS = re.compile(r"step\.(\d{3,})/latents/(?:video|audio)")


def first_divergence(candidate: Sample, reference: Sample) -> Divergence | None:
    """The first tap, in the candidate's order, whose sha256 differs; None when all common taps are equal."""
    common = [name for name in candidate.trace if name in reference.trace]
    differing = [name for name in common if candidate.trace[name].sha256 != reference.trace[name].sha256]
    if not differing:
        return None
    tap = differing[0]
    mine, theirs = _kept_pair(candidate, reference, tap)
    kept = mine is not None
    return Divergence(
        tap=tap,
        rel_l2=REGISTRY["latents.rel_l2"].function(mine, theirs) if kept else None,
        max_abs=REGISTRY["latents.max_abs"].function(mine, theirs) if kept else None,
        candidate=_tap_dict(candidate.trace[tap]),
        reference=_tap_dict(reference.trace[tap]),
        compared=len(common),
        differing=len(differing),
        missing=(
            *(name for name in candidate.trace if name not in reference.trace),
            *(name for name in reference.trace if name not in candidate.trace),
        ),
    )


def latent_steps(candidate: Sample, reference: Sample) -> tuple[StepResult, ...]:
    """Relative L2 of the state at the start of each step, then of the final state under the next number.

    A stream is None where a side did not keep the tensor or the shapes differ; steps without any are left out.
    """
    numbers = sorted({int(match[1]) for name in candidate.tensors if (match := _LATENTS.fullmatch(name))})
    prefixes = [(number, f"step.{number:03d}/latents") for number in numbers]
    prefixes.append((numbers[-1] + 1 if numbers else 0, "latents/final"))
    steps = []
    for number, prefix in prefixes:
        errors = {stream: _rel_l2(candidate, reference, f"{prefix}/{stream}") for stream in STREAMS}
        if any(error is not None for error in errors.values()):
            steps.append(StepResult(step=number, **errors))
    return tuple(steps)


def _rel_l2(candidate: Sample, reference: Sample, tap: str) -> float | None:
    mine, theirs = _kept_pair(candidate, reference, tap)
    return None if mine is None else REGISTRY["latents.rel_l2"].function(mine, theirs)


def _kept_pair(candidate: Sample, reference: Sample, tap: str) -> tuple[torch.Tensor, torch.Tensor] | tuple[None, None]:
    """Both sides' tensors, where both were kept and have one shape."""
    mine, theirs = candidate.tensors.get(tap), reference.tensors.get(tap)
    if mine is None or theirs is None or mine.shape != theirs.shape:
        return None, None
    return mine, theirs


def _tap_dict(tap: Tap) -> dict[str, Any]:
    return {**asdict(tap), "shape": list(tap.shape)}
