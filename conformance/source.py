"""What ``--checkpoint`` and the options beside it name, as a folder in the diffusers layout."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from conformance import checkpoint, hub, unpack
from conformance.errors import InputError

FORMS = "a diffusers folder, an official .safetensors file or a hub id 'org/name'"
_HUB_ID = re.compile(r"(?![.])[\w.-]+/[\w.-]+(?<![.]safetensors)", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Source:
    """The values of the options as given. All but the first belong to an official file, which holds none of them."""

    checkpoint: str
    text_encoder: str | None = None
    upsampler: str | None = None
    lora: str | None = None


def resolve(source: Source, report: Callable[[str], None]) -> Path:
    """The checkpoint's folder, verified; downloaded or unpacked first where it has to be. ``report`` says how far.

    A path that exists is a path. InputError for a value of none of the ``FORMS``, for options that do not go with it,
    and for a checkpoint that cannot be had, is not whole or is of no kind that is known.
    """
    path = Path(source.checkpoint)
    if path.is_file():
        if path.suffix != ".safetensors":
            raise InputError(f"--checkpoint {path}: expected {FORMS}")
        if source.text_encoder is None:
            raise InputError(f"--checkpoint {path}: an official file has no text encoder; expected --text-encoder too")
        upsampler, lora = (None if value is None else Path(value) for value in (source.upsampler, source.lora))
        return unpack.unpacked(path, Path(source.text_encoder), upsampler, lora, report)
    for name in ("text_encoder", "upsampler", "lora"):
        if getattr(source, name) is not None:
            flag = f"--{name.replace('_', '-')}"
            raise InputError(f"{flag}: goes with an official file; {source.checkpoint} is a folder or a hub id")
    if path.is_dir():
        folder = path.resolve()
    elif _HUB_ID.fullmatch(source.checkpoint):
        folder = hub.snapshot(source.checkpoint, report)
    else:
        raise InputError(f"--checkpoint {source.checkpoint}: does not exist; expected {FORMS}")
    checkpoint.verify(folder)
    return folder
