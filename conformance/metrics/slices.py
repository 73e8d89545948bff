"""Distances of tensors slice by slice, so that one bad slice among many is not averaged away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conformance.errors import InputError

if TYPE_CHECKING:
    import torch


def worst_slice(candidate: torch.Tensor, reference: torch.Tensor, axis: int) -> float:
    """Largest norm of the difference of a slice along ``axis``, over the root mean square of the norms of the
    reference's slices; against a zero reference 0 when equal, else infinite. InputError without such an axis."""
    if reference.ndim < -axis or not reference.numel():
        raise InputError(f"latents are {list(reference.shape)}; expected at least one value along axis {axis}")
    difference = _squares(candidate.double() - reference.double(), axis)
    worst = float(difference.max().sqrt())
    norm = float(_squares(reference.double(), axis).mean().sqrt())
    if norm == 0:
        return 0.0 if worst == 0 else float("inf") * worst  # NaN stays NaN
    return worst / norm


def _squares(values: torch.Tensor, axis: int) -> torch.Tensor:
    """Sum of squares of each slice along ``axis``."""
    return values.square().movedim(axis, 0).flatten(1).sum(dim=1) if values.ndim > 1 else values.square()
