"""The tiny checkpoints as official single files: the same tensors under their official names, configuration beside."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from safetensors.torch import load_file, save_file

from conformance.jsonio import digest
from reference_impl.official.config import model_version, official_config, upsampler_config
from reference_impl.official.load import single_file
from reference_impl.tiny import build


def cached(model: str) -> Path:
    """The official single file of ``ltx-2`` or ``ltx-2.3``, beside the folder of the tiny checkpoint.

    Written first where it is not there yet; several processes may ask at once. InputError for another model.
    """
    folder = build.cached(model)
    path = folder.with_name(f"{folder.name}-{digest(official_config(folder))[:12]}.official.safetensors")
    if not path.is_file():
        handle, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        try:
            write(folder, Path(aside))
            os.replace(aside, path)
        finally:
            Path(aside).unlink(missing_ok=True)
    return path


def write(folder: Path, path: Path) -> None:
    """All of a diffusers folder but its text encoder as one official file; ``config`` and version in its metadata.

    InputError names a tensor that has no official name.
    """
    metadata = {"config": json.dumps(official_config(folder)), "model_version": model_version(folder)}
    save_file(single_file(folder), path, metadata=metadata)


def write_upsampler(folder: Path, path: Path) -> None:
    """The latent upsampler of a diffusers folder as an official file, which names its tensors alike."""
    (stored,) = (folder / "latent_upsampler").glob("*.safetensors")
    save_file(load_file(stored), path, metadata={"config": json.dumps(upsampler_config(folder))})
