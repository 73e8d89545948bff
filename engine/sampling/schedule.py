"""Noise schedules of flow matching: falling levels from 1, shifted by sequence length, stretched to a terminal level.

Shift: Esser et al. 2024, arXiv:2403.03206 (section 5.3.2), in exponential form. Always computed on the CPU, so
that a schedule does not depend on the device's exp.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from conformance.errors import bad_field
from engine.configfile import parse
from engine.numerics import Numerics

_FIXED = {
    "num_train_timesteps": (1000, 1000),
    "use_dynamic_shifting": (True, False),
    "time_shift_type": ("exponential", "exponential"),
    "shift_terminal": (0.1, None),
    "use_karras_sigmas": (False, False),
    "use_exponential_sigmas": (False, False),
    "use_beta_sigmas": (False, False),
    "invert_sigmas": (False, False),
    "stochastic_sampling": (False, False),
}
_TERMINAL = 0.1
_REFERENCE_TOKENS = 4096
# the static shift has no effect under dynamic shifting
_UNUSED = frozenset({"shift"})


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """``scheduler/scheduler_config.json``: the shift's exponent grows linearly between two sequence lengths."""

    base_image_seq_len: int
    max_image_seq_len: int
    base_shift: float
    max_shift: float

    @classmethod
    def load(cls, folder: Path) -> ScheduleConfig:
        """Read and check ``folder/scheduler_config.json``. InputError names the file, the key and the value."""
        return parse(cls, folder / "scheduler_config.json", fixed=_FIXED, unused=_UNUSED)

    def exponent(self, tokens: int) -> float:
        slope = (self.max_shift - self.base_shift) / (self.max_image_seq_len - self.base_image_seq_len)
        return tokens * slope + (self.base_shift - slope * self.base_image_seq_len)


def schedule(steps: int, tokens: int, config: ScheduleConfig, numerics: Numerics) -> torch.Tensor:
    """Noise levels [steps+1], float32 on the CPU: from 1, ``steps``-th 0.1, last 0.

    InputError for a single step, whose level would have to be 1 and 0.1 at once.
    """
    if steps < 2:
        raise bad_field("schedule", "steps", steps, "at least 2, or sigmas given by the request")
    power = math.exp(config.exponent(_REFERENCE_TOKENS if numerics.schedule_tokens == "4096" else tokens))
    if numerics.schedule_grid == "float64":
        levels = np.linspace(1.0, 1.0 / steps, steps).astype(np.float32)
    else:
        levels = torch.linspace(1.0, 0.0, steps + 1)[:-1].numpy()
    denominator = power + (1 / levels - 1)
    shifted = power * (1 / denominator) if numerics.schedule_shift == "reciprocal" else power / denominator
    rest = 1 - shifted
    stretched = 1 - rest / (rest[-1] / (1 - _TERMINAL))
    return given(stretched.tolist())


def given(levels: tuple[float, ...] | list[float]) -> torch.Tensor:
    """The levels as float32 [N+1] on the CPU, with the final 0."""
    return torch.tensor([*levels, 0.0], dtype=torch.float32)
