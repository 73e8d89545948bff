"""Safetensors files without a tensor library: what one declares, checked, and writing one out of parts of others.

The format is an 8-byte little-endian header length, a JSON header (name -> dtype, shape, byte range; ``__metadata__``
-> strings) and the bytes (safetensors 0.8, its README).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conformance.errors import InputError

# Suffixes of files that run code when they are read.
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_ITEM_BYTES = {"BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1} | {"I16": 2, "U16": 2, "F16": 2, "BF16": 2}
_ITEM_BYTES |= {"I32": 4, "U32": 4, "F32": 4} | {"I64": 8, "U64": 8, "F64": 8}
_MAX_HEADER = 100_000_000  # the limit of the safetensors library
_CHUNK = 2**24  # bytes in memory while copying


@dataclass(frozen=True)
class Tensor:
    """A tensor in a file. begin, end: absolute, in bytes."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_header(path: Path, where: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name, and the metadata. The byte ranges fill the file exactly, without holes or overlap.

    InputError, which begins with ``where``: the file is missing, truncated or corrupt.
    """
    if not path.is_file():
        raise InputError(f"{where}: file is missing")
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > size - 8:
                raise InputError(f"{where}: truncated: {size} bytes hold no complete safetensors header")
            if length > _MAX_HEADER:
                raise InputError(f"{where}: header of {length} bytes; expected at most {_MAX_HEADER}")
            header = json.loads(file.read(length))
        metadata = header.pop("__metadata__", {})
        found = {key: _entry(path, value, 8 + length) for key, value in header.items()}
        if not all(isinstance(value, str) for value in metadata.values()):
            raise ValueError("metadata that are not strings")
    except OSError as error:
        raise InputError(f"{where}: cannot be read: {error.strerror or error}") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(f"{where}: corrupt safetensors header ({type(error).__name__}: {error})") from None
    expected = 8 + length
    for key, tensor in sorted(found.items(), key=lambda item: (item[1].begin, item[1].end)):
        if tensor.begin != expected:
            raise InputError(f"{where}: corrupt safetensors header: tensor {key!r} leaves a hole or overlaps")
        expected = tensor.end
    if expected != size:
        problem = "truncated" if size < expected else "trailing bytes"
        raise InputError(f"{where}: {problem}: {size} bytes; the header declares {expected}")
    return found, metadata


def _entry(path: Path, value: dict[str, Any], start: int) -> Tensor:
    """One header entry. ValueError, TypeError or KeyError when it is malformed."""
    begin, end = value["data_offsets"]
    dtype, shape = value["dtype"], tuple(value["shape"])
    numbers = (begin, end, *shape)
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError(f"offsets and shape {numbers}; expected integers of at least 0")
    if dtype not in _ITEM_BYTES or end - begin != math.prod(shape) * _ITEM_BYTES[dtype]:
        raise ValueError(f"{end - begin} bytes for shape {list(shape)} of dtype {dtype!r}")
    return Tensor(path, dtype, shape, start + begin, start + end)


def write(path: Path, tensors: Mapping[str, Tensor], copied: Callable[[int], None] = lambda count: None) -> None:
    """Write ``tensors`` under their new names, bytes as they are. ``copied`` is told of every piece of bytes.

    No more than a piece is in memory. InputError when a source ends early; OSError when the target cannot be written.
    """
    # the order of the safetensors library: every tensor lies at a multiple of its item size
    names = sorted(tensors, key=lambda name: (-_ITEM_BYTES[tensors[name].dtype], name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name in names:
        tensor = tensors[name]
        end = offset + tensor.end - tensor.begin
        header[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    files = {tensor.file for tensor in tensors.values()}
    sources = {file: file.open("rb") for file in sorted(files)}
    try:
        with path.open("wb") as target:
            target.write(len(text).to_bytes(8, "little") + text)
            for name in names:
                tensor, source = tensors[name], sources[tensors[name].file]
                source.seek(tensor.begin)
                left = tensor.end - tensor.begin
                while left:
                    piece = source.read(min(left, _CHUNK))
                    if not piece:
                        raise InputError(f"{tensor.file}: ended while tensor {name!r} was read")
                    target.write(piece)
                    left -= len(piece)
                    copied(len(piece))
    finally:
        for source in sources.values():
            source.close()
