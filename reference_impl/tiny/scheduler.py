"""The scheduler's configuration, the same for both models and as released: nothing in it is small."""

from __future__ import annotations

from typing import Any

from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

CONFIG: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "shift": 1.0,
    "use_dynamic_shifting": True,
    "base_shift": 0.95,
    "max_shift": 2.05,
    "base_image_seq_len": 1024,
    "max_image_seq_len": 4096,
    "invert_sigmas": False,
    "shift_terminal": 0.1,
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    "time_shift_type": "exponential",
    "stochastic_sampling": False,
}


def build() -> FlowMatchEulerDiscreteScheduler:
    """The scheduler, the same for every model."""
    return FlowMatchEulerDiscreteScheduler(**CONFIG)
