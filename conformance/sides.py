"""One side of a comparison of files: what a path holds, and its frames and sound.

Shapes: B (outputs), F (frames), H, W (pixels), C (channels), N (audio samples).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from conformance.clips import SOUND_SUFFIXES, VIDEO_SUFFIXES, Codec, Sound, read_sound, read_video
from conformance.errors import InputError
from conformance.media import IMAGE_SUFFIXES, LOSSY_SUFFIXES, read_image
from conformance.scratch import FrameStore

Kind = Literal["image", "folder", "sample", "video", "sound"]
ROLES = ("candidate", "reference")


@dataclass(frozen=True, kw_only=True, eq=False)
class Side:
    """names: of the frames, in order (file stems, or places in a video). files: of the frames, or none. video: the
    frames of a video [F,H,W,3]. lossy: what lost information, file by file."""

    path: Path
    kind: Kind
    names: tuple[str, ...] = ()
    files: dict[str, Path] = field(default_factory=dict)
    video: np.ndarray | None = None
    codec: Codec | None = None
    sound: Sound | None = None
    latents: dict[str, torch.Tensor] = field(default_factory=dict)

    def lossy(self, names: Sequence[str]) -> list[str]:
        """The files among those of ``names``, and the sound, that were coded with loss."""
        found = [
            self.files[n].name for n in names if n in self.files and self.files[n].suffix.lower() in LOSSY_SUFFIXES
        ]
        if self.codec is not None and not self.codec.lossless:
            found.append(f"{self.path.name} ({self.codec})")
        if self.sound is not None and not self.sound.lossless:
            found.append(f"{self.path.name} (sound: {self.sound.codec})")
        return found

    def frames(self, names: Sequence[str], store: FrameStore) -> np.ndarray:
        """The named frames, uint8 [F,H,W,3]. InputError when an image cannot be read or sizes differ."""
        if self.video is not None:
            places = [self.names.index(name) for name in names]
            if places == list(range(places[0], places[0] + len(places))):
                return self.video[places[0] : places[0] + len(places)]
        for name in names:
            store.add(self._frame(name), str(self.files.get(name, f"{self.path} frame {name}")))
        return store.frames()

    def _frame(self, name: str) -> np.ndarray:
        return read_image(self.files[name]) if self.video is None else self.video[self.names.index(name)]


def open_side(path: Path, store: FrameStore) -> Side:
    """What ``path`` holds: an image, a folder of images, a saved sample, a video or sound. InputError for the rest.

    A saved sample is a case's folder as ``conformance run`` writes it, taken as its candidate, or the folder
    ``candidate`` or ``reference`` in it: frames, 16-bit sound and latents.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if path.is_dir():
        folder = path / ROLES[0] if (path / f"{ROLES[0]}.safetensors").is_file() else path
        if folder.name in ROLES and folder.with_suffix(".safetensors").is_file():
            return _sample(path, folder)
        files = frame_files(folder)
        return Side(path=path, kind="folder", names=tuple(files), files=files)
    if path.suffix.lower() in VIDEO_SUFFIXES:
        codec = read_video(path, store)
        names = tuple(str(index) for index in range(store.count))
        return Side(path=path, kind="video", names=names, video=store.frames(), codec=codec, sound=read_sound(path))
    if path.suffix.lower() in SOUND_SUFFIXES:
        sound = read_sound(path)
        if sound is None:
            raise InputError(f"{path}: no audio stream")
        return Side(path=path, kind="sound", sound=sound)
    return Side(path=path, kind="image", names=(path.stem,), files={path.stem: path})


def _sample(path: Path, folder: Path) -> Side:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    tensors, wave = folder.with_suffix(".safetensors"), folder.with_suffix(".wav")
    try:
        latents = load_file(tensors)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{tensors}: cannot be read ({' '.join(str(error).split())})") from None
    files = frame_files(folder)
    sound = read_sound(wave) if wave.is_file() else None
    return Side(path=path, kind="sample", names=tuple(files), files=files, sound=sound, latents=latents)


def frame_files(folder: Path) -> dict[str, Path]:
    """Image files of a folder by stem in natural order (frame_2 before frame_10). Hidden files do not count."""
    files: dict[str, Path] = {}
    for item in sorted(folder.iterdir(), key=lambda item: (_natural(item.stem), item.name)):
        if item.name.startswith("."):
            continue
        if not item.is_file() or item.suffix.lower() not in IMAGE_SUFFIXES:
            raise InputError(f"{item}: not a frame; expected only {', '.join(IMAGE_SUFFIXES)} files in {folder}")
        if item.stem in files:
            raise InputError(f"{item}: a second file for frame {item.stem!r} beside {files[item.stem].name}")
        files[item.stem] = item
    if not files:
        raise InputError(f"{folder}: no frames; expected {', '.join(IMAGE_SUFFIXES)} files")
    return files


def _natural(stem: str) -> list[tuple[int, int, str]]:
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"([0-9]+)", stem) if part]
