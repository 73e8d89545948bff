"""Checkpoints in the diffusers folder layout: are they whole, and what exactly is in them.

Weights are read from safetensors only. The format is an 8-byte little-endian header length, a JSON header (name ->
dtype, shape, byte range) and the bytes (safetensors 0.8, its README); it is read here directly, so that checking a
checkpoint needs neither torch nor a model class.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from conformance.errors import InputError
from conformance.jsonio import digest as json_digest
from conformance.jsonio import read_json

# Component folder -> its configuration files and the stem of its weight files (None: no weights).
COMPONENTS: dict[str, tuple[tuple[str, ...], str | None]] = {
    "transformer": (("config.json",), "diffusion_pytorch_model"),
    "connectors": (("config.json",), "diffusion_pytorch_model"),
    "text_encoder": (("config.json",), "model"),
    "tokenizer": (("tokenizer.json", "tokenizer_config.json"), None),
    "vae": (("config.json",), "diffusion_pytorch_model"),
    "audio_vae": (("config.json",), "diffusion_pytorch_model"),
    "vocoder": (("config.json",), "diffusion_pytorch_model"),
    "scheduler": (("scheduler_config.json",), None),
}
# Folders that a checkpoint may have and its index does not list: two-stage pipelines load them on their own.
OPTIONAL: dict[str, tuple[tuple[str, ...], str | None]] = {
    "latent_upsampler": (("config.json",), "diffusion_pytorch_model"),
}
INDEX = "model_index.json"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
# Who wrote a configuration, and from where: no part of what it configures.
_BOOKKEEPING = ("_name_or_path", "_diffusers_version", "transformers_version")
_ITEM_BYTES = {"BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1} | {"I16": 2, "U16": 2, "F16": 2, "BF16": 2}
_ITEM_BYTES |= {"I32": 4, "U32": 4, "F32": 4} | {"I64": 8, "U64": 8, "F64": 8}
_MAX_HEADER = 100_000_000  # the limit of the safetensors library


@dataclass(frozen=True)
class _Tensor:
    file: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int  # absolute, in bytes
    end: int


def verify(folder: Path) -> None:
    """Check that ``folder`` holds a whole LTX-2 checkpoint. Headers and sizes are read, not the weights.

    InputError, one line with folder, file and reason: a component or file is missing, weights are truncated, corrupt or
    pickled, JSON is malformed, a sharded index names a shard that is absent, outside the folder or without the tensor.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: checkpoint folder does not exist")
    index = _config(folder, INDEX)
    for name in COMPONENTS:
        if name not in index:
            raise InputError(f"{folder}: {INDEX}: component {name!r} is missing")
        _component(folder, name)
    for name in OPTIONAL:
        if (folder / name).exists():
            _component(folder, name)


def digests(folder: Path, *, optional: tuple[str, ...] = ()) -> dict[str, str]:
    """sha256 of the content of every component (and of ``model_index.json``), as hexadecimal digits by name.

    optional: those of ``OPTIONAL`` that the case needs. The others count for nothing, wherever they are present.

    Content is each tensor's name, dtype, shape and bytes and each configuration's canonical JSON: neither the order of
    tensors, nor sharding, nor the layout of a safetensors header, nor the version that wrote a configuration counts.
    Computed once a process while the files' sizes and times stay the same. InputError as in :func:`verify`.
    """
    verify(folder)
    stamp = tuple(
        (path.relative_to(folder).as_posix(), path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    )
    key = (folder.resolve(), optional, stamp)
    if key not in _cache:
        parts = {name: _component_digest(folder, name) for name in (*COMPONENTS, *optional)}
        _cache[key] = parts | {"model_index": json_digest(_config(folder, INDEX))}
    return dict(_cache[key])


def digest(folder: Path) -> str:
    """One sha256 over :func:`digests`."""
    return json_digest(digests(folder))


_cache: dict[tuple[Path, tuple[str, ...], tuple[tuple[str, int, int], ...]], dict[str, str]] = {}


def _config(folder: Path, name: str) -> dict[str, Any]:
    """A JSON object without its bookkeeping."""
    if not (folder / name).is_file():
        raise InputError(f"{folder}: {name}: file is missing")
    data = read_json(folder / name)
    if not isinstance(data, dict):
        raise InputError(f"{folder}: {name}: expected a JSON object, got {type(data).__name__}")
    return {key: value for key, value in data.items() if key not in _BOOKKEEPING}


def _component(folder: Path, name: str) -> dict[str, _Tensor]:
    """The tensors of a component by name, everything about it but the tensors' bytes having been checked."""
    configs, stem = (COMPONENTS | OPTIONAL)[name]
    if not (folder / name).is_dir():
        raise InputError(f"{folder}: {name}: component folder is missing")
    for config in configs:
        _config(folder, f"{name}/{config}")
    return {} if stem is None else _weights(folder, name, stem)


def _weights(folder: Path, component: str, stem: str) -> dict[str, _Tensor]:
    single, index = f"{component}/{stem}.safetensors", f"{component}/{stem}.safetensors.index.json"
    if (folder / single).is_file() and (folder / index).is_file():
        raise InputError(f"{folder}: {component}: both {stem}.safetensors and an index of shards; expected one of them")
    if (folder / single).is_file():
        return _header(folder, single)
    if (folder / index).is_file():
        return _shards(folder, component, index)
    pickled = sorted(path.name for path in (folder / component).iterdir() if path.suffix in _PICKLES)
    if pickled:
        raise InputError(f"{folder}: {component}/{pickled[0]}: pickled weights are refused; expected {single}")
    raise InputError(f"{folder}: {single}: file is missing")


def _shards(folder: Path, component: str, index: str) -> dict[str, _Tensor]:
    weight_map = _config(folder, index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError(f"{folder}: {index}: 'weight_map' is {weight_map!r:.60}; expected tensor names and shards")
    for shard in weight_map.values():
        # by name: a hub cache links its files to elsewhere, and that is fine
        if not isinstance(shard, str) or PurePosixPath(shard).name != shard or not shard.endswith(".safetensors"):
            raise InputError(f"{folder}: {index}: shard {shard!r:.80} is not a .safetensors file of the same folder")
    found: dict[str, _Tensor] = {}
    for shard in sorted(set(weight_map.values())):
        tensors = _header(folder, f"{component}/{shard}")
        listed = {name for name, place in weight_map.items() if place == shard}
        for problem, names in (("lacks", listed - tensors.keys()), ("has unlisted", tensors.keys() - listed)):
            if names:
                raise InputError(f"{folder}: {component}/{shard}: {problem} tensor {sorted(names)[0]!r} of {index}")
        found |= tensors
    return found


def _header(folder: Path, name: str) -> dict[str, _Tensor]:
    """The tensors a safetensors file declares; their byte ranges fill the file exactly, without holes or overlap."""
    path, where = folder / name, f"{folder}: {name}"
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
        entries = {key: value for key, value in header.items() if key != "__metadata__"}
        found = {key: _entry(path, value, 8 + length) for key, value in entries.items()}
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
    return found


def _entry(path: Path, value: dict[str, Any], start: int) -> _Tensor:
    """One header entry. ValueError, TypeError or KeyError when it is malformed."""
    begin, end = value["data_offsets"]
    dtype, shape = value["dtype"], tuple(value["shape"])
    numbers = (begin, end, *shape)
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError(f"offsets and shape {numbers}; expected integers of at least 0")
    if dtype not in _ITEM_BYTES or end - begin != math.prod(shape) * _ITEM_BYTES[dtype]:
        raise ValueError(f"{end - begin} bytes for shape {list(shape)} of dtype {dtype!r}")
    return _Tensor(path, dtype, shape, start + begin, start + end)


def _component_digest(folder: Path, name: str) -> str:
    tensors = _component(folder, name)
    total = hashlib.sha256()
    for side, content in _side_files(folder, name):
        total.update(f"{side}\0{content}\0".encode())
    by_file: dict[Path, list[str]] = {}
    for key, tensor in tensors.items():
        by_file.setdefault(tensor.file, []).append(key)
    sums: dict[str, str] = {}
    for path, keys in by_file.items():
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            view = memoryview(data)
            for key in keys:
                with view[tensors[key].begin : tensors[key].end] as part:
                    sums[key] = hashlib.sha256(part).hexdigest()
            view.release()
    for key in sorted(tensors):
        total.update(f"{key}\0{tensors[key].dtype}\0{list(tensors[key].shape)}\0{sums[key]}\0".encode())
    return total.hexdigest()


def _side_files(folder: Path, name: str) -> Iterator[tuple[str, str]]:
    """Path and digest of every file of a component that is neither weights nor an index of shards."""
    for path in sorted((folder / name).rglob("*")):
        relative = path.relative_to(folder).as_posix()
        if path.is_dir() or path.suffix in (".safetensors", *_PICKLES) or relative.endswith(".safetensors.index.json"):
            continue
        if path.suffix == ".json":
            data = read_json(path)
            known = isinstance(data, dict) and path.name in ("config.json", *(COMPONENTS | OPTIONAL)[name][0])
            yield relative, json_digest(_config(folder, relative) if known else data)
        else:
            yield relative, hashlib.sha256(path.read_bytes()).hexdigest()
