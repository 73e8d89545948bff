"""Weights of the Gemma3 text model out of a ``Gemma3ForConditionalGeneration`` checkpoint."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

from conformance.errors import InputError
from engine import weights
from engine.models.gemma3.config import Gemma3Config
from engine.models.gemma3.model import Gemma3TextModel

FILE = "model.safetensors"
# Prefix of the text model -> prefixes of what no hidden state depends on: vision tower, its projector, output head.
# The first is how such files are commonly published, the second names modules as transformers 5 does in memory.
LAYOUTS = {
    "language_model.model.": ("vision_tower.", "multi_modal_projector.", "language_model.lm_head."),
    "model.language_model.": ("model.vision_tower.", "model.multi_modal_projector.", "lm_head."),
}


def _renamed(prefix: str, name: str) -> str | None:
    return name.removeprefix(prefix) if name.startswith(prefix) else None


def load(folder: Path, dtype: torch.dtype, device: torch.device) -> Gemma3TextModel:
    """The text model of ``folder`` (config.json and safetensors, one file or an index), ready for inference.

    InputError for a config that is not implemented and for tensors that are missing, unknown or of another
    shape. Image parts of the checkpoint are left on the disk.
    """
    config = Gemma3Config.load(folder)
    names = weights.tensor_names(folder, FILE)
    found = [prefix for prefix in LAYOUTS if any(name.startswith(prefix) for name in names)]
    if len(found) != 1:
        raise InputError(f"{folder}: expected tensors named {' or '.join(f'{p}*' for p in LAYOUTS)}, found {found}")
    known = (found[0], *LAYOUTS[found[0]])
    unknown = sorted(name for name in names if not name.startswith(known))
    if unknown:
        raise InputError(f"{folder}: {len(unknown)} unknown tensors (first {unknown[0]!r})")
    build = partial(Gemma3TextModel, config)
    return weights.load(build, folder, dtype, device, file=FILE, rename=partial(_renamed, found[0]))
