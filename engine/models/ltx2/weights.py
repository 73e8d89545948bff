"""Weights of a model in a diffusers folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from engine import weights

M = TypeVar("M", bound=nn.Module)
FILE = "diffusion_pytorch_model.safetensors"


def load(
    build: Callable[[], M],
    folder: Path,
    dtype: torch.dtype,
    device: torch.device,
    *,
    fp8: Callable[[str], bool] = weights.wide,
) -> M:
    """``build()`` with the folder's weights in ``dtype``, ready for inference.

    fp8: names of tensors that are held as float8_e4m3fn instead.
    InputError when a tensor is missing, unknown or of another shape: one line that names the first of each.
    """
    return weights.load(build, folder, dtype, device, file=FILE, fp8=fp8)
