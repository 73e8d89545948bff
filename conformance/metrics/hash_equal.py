from __future__ import annotations

from typing import TYPE_CHECKING

from conformance.generator import tensor_digest

if TYPE_CHECKING:
    import torch


def hash_equal(candidate: torch.Tensor, reference: torch.Tensor) -> bool:
    """Whether dtype, shape and every bit agree (0.0 and -0.0 differ)."""
    return tensor_digest(candidate) == tensor_digest(reference)
