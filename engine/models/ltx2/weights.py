"""Safetensors weights of a diffusers folder into a module, strictly: every key once, every shape right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from conformance.errors import InputError, bad_field
from conformance.jsonio import read_json

M = TypeVar("M", bound=nn.Module)
_FILE = "diffusion_pytorch_model.safetensors"


def _files(folder: Path) -> list[Path]:
    index = folder / f"{_FILE}.index.json"
    if not index.is_file():
        return [folder / _FILE]
    data = read_json(index)
    names = data.get("weight_map") if isinstance(data, dict) else None
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise bad_field(str(index), "weight_map", type(names).__name__, "an object of tensor name to file name")
    for name in names.values():
        if Path(name).name != name or name in ("", ".", ".."):
            raise bad_field(str(index), "weight_map", name, "file names inside the folder")
    return [folder / name for name in sorted(set(names.values()))]


def read_tensors(folder: Path, dtype: torch.dtype, device: torch.device) -> dict[str, torch.Tensor]:
    """All tensors of the folder's single file or sharded index, as ``dtype`` on ``device``.

    Each is a fresh allocation: tensors mapped from a file can lie unaligned, and CPU matrix products of
    unaligned operands take another path with other last bits. InputError when a file is missing or corrupt.
    """
    tensors: dict[str, torch.Tensor] = {}
    for path in _files(folder):
        try:
            with safe_open(path, framework="pt", device="cpu") as file:
                for name in file.keys():  # noqa: SIM118 - not a mapping
                    if name in tensors:
                        raise InputError(f"{path}: tensor {name!r} is in more than one file")
                    tensors[name] = file.get_tensor(name).to(device=device, dtype=dtype, copy=True)
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path}: cannot be read as safetensors: {str(error).splitlines()[0]}") from None
    return tensors


def load(build: Callable[[], M], folder: Path, dtype: torch.dtype, device: torch.device) -> M:
    """``build()`` with the folder's weights in ``dtype``, ready for inference.

    InputError when a tensor is missing, unknown or of another shape: one line that names the first of each.
    """
    with torch.device("meta"):
        module = build()
    expected = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    tensors = read_tensors(folder, dtype, device)
    problems = []
    for problem, names in (
        ("missing", expected.keys() - tensors.keys()),
        ("unknown", tensors.keys() - expected.keys()),
    ):
        if names:
            problems.append(f"{len(names)} {problem} (first {sorted(names)[0]!r})")
    wrong = sorted(name for name in expected.keys() & tensors.keys() if tuple(tensors[name].shape) != expected[name])
    if wrong:
        found, wanted = tuple(tensors[wrong[0]].shape), expected[wrong[0]]
        problems.append(f"{len(wrong)} of another shape (first {wrong[0]!r}: {found}, expected {wanted})")
    if problems:
        raise InputError(f"{folder}: tensors do not fit {type(module).__name__}: {'; '.join(problems)}")
    module.load_state_dict(tensors, assign=True)
    return module.eval().requires_grad_(False)
