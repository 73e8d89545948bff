"""Safetensors weights of a folder into a module, strictly: every key once, every shape right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TypeVar

import torch
from torch import nn

from conformance.errors import InputError, bad_field
from conformance.jsonio import read_json
from conformance.tensorfile import Tensor, read_header

M = TypeVar("M", bound=nn.Module)
Rename = Callable[[str], str | None]
# quantised weights mean nothing without their scales; float8 has its own place (``fp8``)
DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16, "F64": torch.float64}
FP8 = {"F8_E4M3": torch.float8_e4m3fn}


def _files(folder: Path, file: str) -> list[Path]:
    index = folder / f"{file}.index.json"
    if not index.is_file():
        return [folder / file]
    data = read_json(index)
    names = data.get("weight_map") if isinstance(data, dict) else None
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise bad_field(str(index), "weight_map", type(names).__name__, "an object of tensor name to file name")
    for name in names.values():
        if Path(name).name != name or name in ("", ".", ".."):
            raise bad_field(str(index), "weight_map", name, "file names inside the folder")
    return [folder / name for name in sorted(set(names.values()))]


def tensor_names(folder: Path, file: str) -> list[str]:
    """Names of all stored tensors, from the headers alone. InputError when a file is missing or corrupt."""
    return [name for path in _files(folder, file) for name in read_header(path, str(path))[0]]


def wide(name: str) -> bool:
    """No tensor is held as float8."""
    return False


def _placed(file: BinaryIO, where: str, stored: Tensor, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """A copy as ``dtype``. InputError when it is stored in a dtype that is not read as this one, or does not fit it."""
    narrow = dtype in FP8.values()
    allowed = DTYPES | FP8 if narrow else DTYPES
    if stored.dtype not in allowed:
        raise bad_field(where, "dtype", stored.dtype, f"one of {tuple(allowed)}")
    tensor = _read(file, stored, allowed[stored.dtype])
    if narrow and tensor.dtype != dtype:
        largest, limit = float(tensor.abs().max()) if tensor.numel() else 0.0, torch.finfo(dtype).max
        if not largest <= limit:  # the cast would clip it without a word
            raise bad_field(where, "largest magnitude", largest, f"at most {limit}, the range of {dtype}")
    return tensor.to(device=device, dtype=dtype)


def _read(file: BinaryIO, stored: Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The tensor in memory of its own; the file's bytes are read into it, so that they are there once."""
    tensor = torch.empty(stored.shape, dtype=dtype)
    left = memoryview(tensor.reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
    file.seek(stored.begin)
    while left:
        count = file.readinto(left)  # type: ignore[attr-defined]
        if not count:
            raise InputError(f"{stored.file}: ended while it was read")
        left = left[count:]
    return tensor


def read_tensors(
    folder: Path,
    dtype: torch.dtype,
    device: torch.device,
    *,
    file: str,
    rename: Rename | None = None,
    fp8: Callable[[str], bool] = wide,
) -> dict[str, torch.Tensor]:
    """Tensors of ``folder/file`` or its sharded index, as ``dtype`` on ``device``.

    rename: stored name -> name of the tensor, or None for one that is not read. fp8: names of tensors that are held as
    float8_e4m3fn instead, rounded from the dtype they are stored in (to nearest, ties to even), or kept.
    Each is a fresh allocation: tensors mapped from a file can lie unaligned, and CPU matrix products of
    unaligned operands take another path with other last bits. Nor is a file mapped while it is copied: the whole of it
    would count as memory beside the copy. InputError when a file is missing or corrupt, or a tensor is stored in a
    dtype that cannot be read so.
    """
    tensors: dict[str, torch.Tensor] = {}
    for path in _files(folder, file):
        header, _ = read_header(path, str(path))
        try:
            with path.open("rb", buffering=0) as opened:
                for stored, place in header.items():
                    name = rename(stored) if rename else stored
                    if name is None:
                        continue
                    if name in tensors:
                        raise InputError(f"{path}: tensor {stored!r} is in more than one file")
                    held = FP8["F8_E4M3"] if fp8(name) else dtype
                    tensors[name] = _placed(opened, f"{path}: tensor {stored!r}", place, held, device)
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    return tensors


def load(
    build: Callable[[], M],
    folder: Path,
    dtype: torch.dtype,
    device: torch.device,
    *,
    file: str,
    rename: Rename | None = None,
    fp8: Callable[[str], bool] = wide,
) -> M:
    """``build()`` with the folder's weights in ``dtype``, ready for inference; arguments as in ``read_tensors``.

    InputError when a tensor is missing, unknown or of another shape: one line that names the first of each.
    """
    with torch.device("meta"):
        module = build()
    expected = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    tensors = read_tensors(folder, dtype, device, file=file, rename=rename, fp8=fp8)
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
