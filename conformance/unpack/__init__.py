"""Official single files as folders in the diffusers layout, unpacked once into the project's cache.

Weights keep their dtype and bits; only names change. What comes from other places is linked, not copied.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conformance import checkpoint, environment, tensorfile
from conformance.errors import InputError
from conformance.jsonio import digest, write_json
from conformance.tensorfile import Tensor
from conformance.unpack import configs, fits, official, parts

Report = Callable[[str], None]
_WEIGHTS = "diffusion_pytorch_model.safetensors"
_LORA = "distilled-lora.safetensors"


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """A folder to be: tensors by component and name, JSON files and links by their path in it."""

    components: dict[str, dict[str, Tensor]]
    files: dict[str, dict[str, Any]]
    links: dict[str, Path]


def unpacked(file: Path, text_encoder: Path, upsampler: Path | None, lora: Path | None, report: Report) -> Path:
    """The folder that ``file`` and the parts beside it make, from the cache or unpacked now.

    upsampler: an official file or a ``latent_upsampler`` folder. lora: the distilled LoRA. Several processes may ask
    at once: one unpacks, the others wait. ``report`` says how far. InputError, before anything is copied, when a part
    is damaged, not implemented or does not fit the others, and when there is no room.
    """
    report(f"{file.name}: reading headers")
    plan = _plan(file, text_encoder, upsampler, lora)
    root = environment.cache_root() / "unpacked"
    folder = root / _key(plan)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _alone(folder, report):
            if not folder.is_dir():
                _unpack(plan, folder, report)
    except OSError as error:
        raise InputError(f"{file}: cannot be unpacked into {root} ({error.strerror or error})") from None
    checkpoint.verify(folder)
    return folder


def _plan(file: Path, text_encoder: Path, upsampler: Path | None, lora: Path | None) -> _Plan:
    given = official.read(file)
    components, settings = dict(given.components), dict(given.configs)
    sizes = settings["connectors"]
    text = parts.text_encoder(text_encoder, sizes["caption_channels"], sizes["text_proj_in_factor"])
    if upsampler is not None:
        channels = settings["vae"]["latent_channels"]
        settings["latent_upsampler"], components["latent_upsampler"] = parts.upsampler(upsampler, channels)
    for name, tensors in components.items():
        fits.check(str(upsampler if name == "latent_upsampler" else file), name, settings[name], tensors)
    files = {f"{name}/config.json": config for name, config in settings.items()}
    files["scheduler/scheduler_config.json"] = configs.SCHEDULER
    files[checkpoint.INDEX] = configs.model_index(
        text.encoder_class, text.tokenizer_class, settings["vocoder"]["_class_name"]
    )
    links = dict(text.files) if lora is None else {**text.files, _LORA: parts.lora(lora)}
    return _Plan(components=components, files=files, links=links)


def _key(plan: _Plan) -> str:
    """Name of the folder: everything that goes into it, files by their place, size and time."""

    def stamp(path: Path) -> list[Any]:
        return [str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns]

    sources = {tensor.file for tensors in plan.components.values() for tensor in tensors.values()}
    tensors = {
        component: {
            name: [tensor.dtype, tensor.shape, tensor.file.name, tensor.begin] for name, tensor in found.items()
        }
        for component, found in plan.components.items()
    }
    links = {name: stamp(path) for name, path in plan.links.items()}
    return digest([sorted(map(stamp, sources)), tensors, plan.files, links])[:24]


@contextmanager
def _alone(folder: Path, report: Report) -> Iterator[None]:
    """One process at a time; what a killed one left goes. Without locks of the file system each unpacks aside."""
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("another process unpacks this file; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:
            yield
            return
        for left in folder.parent.glob(f".{folder.name}.*"):
            shutil.rmtree(left, ignore_errors=True)
        yield


def _unpack(plan: _Plan, folder: Path, report: Report) -> None:
    aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        for name, config in plan.files.items():
            write_json(aside / name, config)
        for name, path in plan.links.items():
            (aside / name).parent.mkdir(exist_ok=True)
            (aside / name).symlink_to(path.resolve())
        _copy(plan.components, aside, report)
        aside.chmod(0o755)
        os.rename(aside, folder)
    except OSError:
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _copy(components: dict[str, dict[str, Tensor]], aside: Path, report: Report) -> None:
    total = sum(tensor.end - tensor.begin for tensors in components.values() for tensor in tensors.values())
    free = shutil.disk_usage(aside).free
    if total > free:
        raise InputError(f"{aside.parent}: {free / 2**30:.1f} GiB free, {total / 2**30:.1f} GiB to unpack there")
    done, shown = 0, -1

    def copied(count: int) -> None:
        nonlocal done, shown
        done += count
        if (tenths := 10 * done // total) > shown:
            shown = tenths
            report(f"unpacking {total / 1e9:.2f} GB into {aside.parent}: {10 * tenths} %")

    for name, tensors in components.items():
        tensorfile.write(aside / name / _WEIGHTS, tensors, copied)
