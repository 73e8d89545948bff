"""Checkpoints in the diffusers folder layout: are they whole, and what exactly is in them.

Weights are read from safetensors only (``tensorfile``): checking a checkpoint needs neither torch nor a model class.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from conformance import environment
from conformance.case import Request
from conformance.errors import InputError
from conformance.jsonio import digest as json_digest
from conformance.jsonio import read_json, write_json
from conformance.tensorfile import PICKLES, Tensor, read_header

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
# The distilled LoRA, one file beside the component folders, and its name among the digests.
LORA, LORA_FILES = "distilled_lora", "*distilled-lora*"
# Hashing more than this takes longer than a process should pay again.
KEPT_FROM = 2**30
# Who wrote a configuration, and from where: no part of what it configures.
_BOOKKEEPING = ("_name_or_path", "_diffusers_version", "transformers_version")


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
    if any(path.suffix in (".safetensors", *PICKLES) for path in folder.glob(LORA_FILES)):
        for path in _loras(folder):
            _header(folder, path.name)


def distilled_lora(folder: Path) -> Path:
    """The distilled LoRA of a checkpoint: its one file ``*distilled-lora*.safetensors``, its header checked.

    InputError when there is none or more than one, when it is pickled, and for a damaged header.
    """
    found = _loras(folder)
    if len(found) != 1:
        names = ", ".join(path.name for path in found)
        raise InputError(f"{folder}: {len(found)} distilled LoRAs ({names}); expected one {LORA_FILES}.safetensors")
    _header(folder, found[0].name)
    return found[0]


def _loras(folder: Path) -> list[Path]:
    """At least one file. InputError names the pickles where there are only those."""
    found = sorted(folder.glob(f"{LORA_FILES}.safetensors"))
    if not found:
        pickled = sorted(path.name for path in folder.glob(LORA_FILES) if path.suffix in PICKLES)
        if pickled:
            raise InputError(f"{folder}: {pickled[0]}: pickled weights are refused; expected a .safetensors file")
        raise InputError(f"{folder}: no distilled LoRA; expected one {LORA_FILES}.safetensors beside its components")
    return found


def digests(folder: Path, *, optional: tuple[str, ...] = ()) -> dict[str, str]:
    """sha256 of the content of every component (and of ``model_index.json``), as hexadecimal digits by name.

    optional: those of ``OPTIONAL``, and ``LORA``, that the case needs. What it does not need counts for nothing.

    Content is each tensor's name, dtype, shape and bytes and each configuration's canonical JSON: neither the order of
    tensors, nor sharding, nor the layout of a safetensors header, nor the version that wrote a configuration counts.
    Computed once a process while the files' sizes and times stay the same, and once a machine for a checkpoint of more
    than ``KEPT_FROM`` bytes. InputError as in :func:`verify`.
    """
    verify(folder)
    stamp = tuple(
        (path.relative_to(folder).as_posix(), path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    )
    key = json_digest([str(folder.resolve()), optional, stamp])
    if key not in _cache:
        kept = environment.cache_root() / "digests" / f"{key}.json"
        large = sum(size for _, size, _ in stamp) > KEPT_FROM
        _cache[key] = read_json(kept) if large and kept.is_file() else _digests(folder, optional)
        if large:
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_json(kept, _cache[key])
    return dict(_cache[key])


def _digests(folder: Path, optional: tuple[str, ...]) -> dict[str, str]:
    parts = {name: _component_digest(folder, name) for name in COMPONENTS}
    parts |= {name: _lora_digest(folder) if name == LORA else _component_digest(folder, name) for name in optional}
    return parts | {"model_index": json_digest(_config(folder, INDEX))}


def digest(folder: Path) -> str:
    """One sha256 over :func:`digests` of everything that is there."""
    present = [name for name in OPTIONAL if (folder / name).exists()]
    present += [LORA] if any(folder.glob(f"{LORA_FILES}.safetensors")) else []
    return json_digest(digests(folder, optional=tuple(present)))


def needed(request: Request) -> tuple[str, ...]:
    """What a request reads of that which a checkpoint may have: the argument ``optional`` of :func:`digests`."""
    if request.second is None:
        return ()
    merges = request.second.lora_first > 0 or request.second.lora_second > 0
    return (*OPTIONAL, LORA) if merges else (*OPTIONAL,)


def shapes(folder: Path, component: str) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of a component, from its headers. InputError as in :func:`verify`."""
    return {name: tensor.shape for name, tensor in _component(folder, component).items()}


def dtypes(folder: Path, component: str) -> dict[str, str]:
    """The stored dtype (``BF16``) of every tensor of a component, from its headers. InputError as in :func:`verify`."""
    return {name: tensor.dtype for name, tensor in _component(folder, component).items()}


_cache: dict[str, dict[str, str]] = {}


def _config(folder: Path, name: str) -> dict[str, Any]:
    """A JSON object without its bookkeeping."""
    if not (folder / name).is_file():
        raise InputError(f"{folder}: {name}: file is missing")
    data = read_json(folder / name)
    if not isinstance(data, dict):
        raise InputError(f"{folder}: {name}: expected a JSON object, got {type(data).__name__}")
    return {key: value for key, value in data.items() if key not in _BOOKKEEPING}


def _component(folder: Path, name: str) -> dict[str, Tensor]:
    """The tensors of a component by name, everything about it but the tensors' bytes having been checked."""
    configs, stem = (COMPONENTS | OPTIONAL)[name]
    if not (folder / name).is_dir():
        raise InputError(f"{folder}: {name}: component folder is missing")
    for config in configs:
        _config(folder, f"{name}/{config}")
    return {} if stem is None else weights(folder, name, stem)


def weights(folder: Path, component: str, stem: str) -> dict[str, Tensor]:
    """The tensors of ``folder/component``, one file or shards with an index, by name. InputError as in ``verify``."""
    single, index = f"{component}/{stem}.safetensors", f"{component}/{stem}.safetensors.index.json"
    if (folder / single).is_file() and (folder / index).is_file():
        raise InputError(f"{folder}: {component}: both {stem}.safetensors and an index of shards; expected one of them")
    if (folder / single).is_file():
        return _header(folder, single)
    if (folder / index).is_file():
        return _shards(folder, component, index)
    pickled = sorted(path.name for path in (folder / component).iterdir() if path.suffix in PICKLES)
    if pickled:
        raise InputError(f"{folder}: {component}/{pickled[0]}: pickled weights are refused; expected {single}")
    raise InputError(f"{folder}: {single}: file is missing")


def _shards(folder: Path, component: str, index: str) -> dict[str, Tensor]:
    weight_map = _config(folder, index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError(f"{folder}: {index}: 'weight_map' is {weight_map!r:.60}; expected tensor names and shards")
    for shard in weight_map.values():
        # by name: a hub cache links its files to elsewhere, and that is fine
        if not isinstance(shard, str) or PurePosixPath(shard).name != shard or not shard.endswith(".safetensors"):
            raise InputError(f"{folder}: {index}: shard {shard!r:.80} is not a .safetensors file of the same folder")
    found: dict[str, Tensor] = {}
    for shard in sorted(set(weight_map.values())):
        tensors = _header(folder, f"{component}/{shard}")
        listed = {name for name, place in weight_map.items() if place == shard}
        for problem, names in (("lacks", listed - tensors.keys()), ("has unlisted", tensors.keys() - listed)):
            if names:
                raise InputError(f"{folder}: {component}/{shard}: {problem} tensor {sorted(names)[0]!r} of {index}")
        found |= tensors
    return found


def _header(folder: Path, name: str) -> dict[str, Tensor]:
    return read_header(folder / name, f"{folder}: {name}")[0]


def _component_digest(folder: Path, name: str) -> str:
    total = hashlib.sha256()
    for side, content in _side_files(folder, name):
        total.update(f"{side}\0{content}\0".encode())
    _add_tensors(total, _component(folder, name))
    return total.hexdigest()


def _lora_digest(folder: Path) -> str:
    total = hashlib.sha256()
    _add_tensors(total, _header(folder, distilled_lora(folder).name))
    return total.hexdigest()


def _add_tensors(total: Any, tensors: dict[str, Tensor]) -> None:
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


def _side_files(folder: Path, name: str) -> Iterator[tuple[str, str]]:
    """Path and digest of every file of a component that is neither weights nor an index of shards."""
    for path in sorted((folder / name).rglob("*")):
        relative = path.relative_to(folder).as_posix()
        if path.is_dir() or path.suffix in (".safetensors", *PICKLES) or relative.endswith(".safetensors.index.json"):
            continue
        if path.suffix == ".json":
            data = read_json(path)
            known = isinstance(data, dict) and path.name in ("config.json", *(COMPONENTS | OPTIONAL)[name][0])
            yield relative, json_digest(_config(folder, relative) if known else data)
        else:
            yield relative, hashlib.sha256(path.read_bytes()).hexdigest()
