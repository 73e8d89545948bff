"""An official single file: whether it is one, its tensors by component, and its configurations in the diffusers layout.

It holds transformer, connectors, VAEs and vocoder under names of its own (``engine.models.ltx2.mapping``), and one
configuration JSON in its metadata. Headers are read here, not weights.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conformance.errors import InputError, bad_field
from conformance.tensorfile import Tensor, read_header
from conformance.unpack import configs, picture, sound
from conformance.unpack.fields import Section
from engine.models.ltx2 import mapping

_ROOTS = ("model.diffusion_model.", "text_embedding_projection.", "vae.", "audio_vae.", "vocoder.")
DTYPES = ("F32", "BF16", "F16", "F64")  # quantised weights mean nothing without their scales


@dataclass(frozen=True, kw_only=True)
class Official:
    """components: tensors under their names in the diffusers layout. configs: each component's ``config.json``."""

    components: dict[str, dict[str, Tensor]]
    configs: dict[str, dict[str, Any]]


def read(path: Path) -> Official:
    """The file as a diffusers folder would say it.

    InputError, one line: it is damaged, of another layout or of two, has tensors that are not known, lacks a
    component, has no configuration or one that is not implemented, or is quantised.
    """
    tensors, metadata = read_header(path, str(path))
    _check_layout(path, tensors)
    try:
        components = mapping.to_diffusers(tensors)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    check_dtypes(path, tensors)
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    return Official(components=components, configs=derive(configuration(path, metadata), shapes))


def derive(config: Section, shapes: configs.Shapes) -> dict[str, configs.Config]:
    """``config.json`` of every component. shapes: of the tensors, under their official names.

    InputError when a section is missing or anything is not implemented.
    """
    for name in ("transformer", "vae", "audio_vae", "vocoder"):
        if name not in config.data:
            raise InputError(f"{config.where}: no section {name!r}; expected the configuration of an official file")
    dit = config.section("transformer")
    return {
        "transformer": configs.transformer(dit),
        "connectors": configs.connectors(dit, shapes),
        "vae": picture.video_vae(config.section("vae")),
        "audio_vae": sound.audio_vae(config.section("audio_vae")),
        "vocoder": sound.vocoder(config.section("vocoder")),
    }


def configuration(path: Path, metadata: dict[str, str]) -> Section:
    """The configuration JSON in the metadata. InputError when there is none."""
    try:
        data = json.loads(metadata["config"])
    except KeyError:
        raise InputError(
            f"{path}: no 'config' in its metadata; expected the configuration of an official file"
        ) from None
    except ValueError as error:
        raise InputError(f"{path}: 'config' in its metadata is not valid JSON ({error})") from None
    if not isinstance(data, dict):
        raise bad_field(f"{path}: metadata", "config", type(data).__name__, "a JSON object")
    return Section(f"{path}: config", data)


def check_dtypes(path: Path, tensors: dict[str, Tensor]) -> None:
    """InputError names the first tensor of another dtype than ``DTYPES``."""
    for name in sorted(tensors):
        if tensors[name].dtype not in DTYPES:
            expected = f"one of {DTYPES}: quantised weights are not implemented"
            raise bad_field(f"{path}: tensor {name!r}", "dtype", tensors[name].dtype, expected)


def _check_layout(path: Path, tensors: dict[str, Tensor]) -> None:
    others = sorted(name for name in tensors if not name.startswith(_ROOTS))
    if not others:
        return
    folder = [name for name in others if _of_a_folder(name)]
    if len(others) == len(tensors):
        known = "names of a diffusers folder: give the folder itself" if folder else "names of no known layout"
        raise InputError(f"{path}: not an official file: tensor {others[0]!r} and the others have {known}")
    if folder:
        both = f"{min(tensors.keys() - {*others})!r} is of the official file, {folder[0]!r} of a diffusers folder"
        raise InputError(f"{path}: two layouts mixed: {both}")
    raise InputError(f"{path}: tensor {others[0]!r} is not known; expected names that begin {' or '.join(_ROOTS)}")


def _of_a_folder(name: str) -> bool:
    for component in mapping.COMPONENTS:
        try:
            mapping.official_name(component, name.removeprefix(f"{component}."))
        except InputError:
            continue
        return True
    return False
