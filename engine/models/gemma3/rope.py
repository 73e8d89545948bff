"""Rotary position embedding of Gemma3 (Su et al. 2021, arXiv:2104.09864), the two halves of a head being the plane.

Legend: B batch, H heads, T tokens, d head dim, P positions in the table.
"""

from __future__ import annotations

import torch

from engine.models.gemma3.config import Rope


class RotaryTable:
    """cos and sin of the positions 0..P-1 [P,d] in float32, made once for the longest sequence asked for."""

    def __init__(self, rope: Rope, head_dim: int) -> None:
        self.rope, self.head_dim = rope, head_dim
        self._cos_Pd = self._sin_Pd = torch.empty(0, head_dim)

    def lookup(self, positions_T: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows of cos and sin for integer positions below len(positions_T): [T,d] each, rounded to ``dtype``."""
        if len(self._cos_Pd) < len(positions_T) or self._cos_Pd.device != positions_T.device:
            self._fill(len(positions_T), positions_T.device)
        return (
            self._cos_Pd.index_select(0, positions_T).to(dtype),
            self._sin_Pd.index_select(0, positions_T).to(dtype),
        )

    def _fill(self, length: int, device: torch.device) -> None:
        # frequencies on the CPU, whatever the device: a power has other last bits elsewhere
        exponents = torch.arange(0, self.head_dim, 2, dtype=torch.float32, device="cpu") / self.head_dim
        frequencies = (1.0 / (self.rope.theta**exponents) / self.rope.factor).to(device)
        half = torch.arange(length, dtype=torch.float32, device=device)[:, None] * frequencies
        angles_Pd = torch.cat((half, half), dim=-1)
        self._cos_Pd, self._sin_Pd = angles_Pd.cos(), angles_Pd.sin()


def rotate(x_BHTd: torch.Tensor, cos_Td: torch.Tensor, sin_Td: torch.Tensor) -> torch.Tensor:
    """x rotated, in the dtype of x: both products and their sum are rounded, as in transformers."""
    first, second = x_BHTd.chunk(2, dim=-1)
    return x_BHTd * cos_Td + torch.cat((-second, first), dim=-1) * sin_Td
