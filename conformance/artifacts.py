"""Files of a case beside its result: every frame, heat maps, audio, latents."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors.torch import save_file

from conformance.generator import Sample
from conformance.media import heat_map, write_png, write_wav
from conformance.results import FrameResult


def _write_frames(sample: Sample, root: Path, folder: str) -> dict[tuple[int, int], str]:
    paths = {}
    for batch, video in enumerate(sample.frames):
        for index, frame in enumerate(video):
            path = f"{folder}/{batch}-{index:04d}.png"
            write_png(root / path, frame)
            paths[batch, index] = path
    return paths


def write_sample(sample: Sample, root: Path, folder: str, side: str) -> dict[str, str]:
    """Latents and audio of one side (``candidate`` or ``reference``); returns {role: path relative to root}."""
    (root / folder).mkdir(parents=True, exist_ok=True)
    files = {f"{side}_latents": f"{folder}/{side}.safetensors"}
    save_file(
        {name: value.contiguous() for name, value in sample.latents.items()}, root / folder / f"{side}.safetensors"
    )
    if sample.audio is not None and sample.audio_rate is not None and np.isfinite(sample.audio).all():
        files[f"{side}_audio"] = f"{folder}/{side}.wav"
        write_wav(root / folder / f"{side}.wav", sample.audio[0], sample.audio_rate)
    return files


def write_frames(
    frames: tuple[FrameResult, ...], candidate: Sample, reference: Sample, root: Path, folder: str
) -> tuple[FrameResult, ...]:
    """Write both sides' frames and their heat maps; returns ``frames`` with the paths filled in.

    Two equal frames have no heat map. Sides that cannot be paired (other counts or sizes) are written too, and
    come back unscored.
    """
    mine = _write_frames(candidate, root, f"{folder}/candidate")
    theirs = _write_frames(reference, root, f"{folder}/reference")
    scored = {(frame.batch, frame.index): frame for frame in frames}
    shown = []
    for key in sorted(mine.keys() | theirs.keys()):
        frame = scored.get(key, FrameResult(batch=key[0], index=key[1], metrics={}))
        heat = ""
        if key in scored and not np.array_equal(candidate.frames[key], reference.frames[key]):
            heat = f"{folder}/heat/{key[0]}-{key[1]:04d}.png"
            write_png(root / heat, heat_map(candidate.frames[key], reference.frames[key]))
        shown.append(replace(frame, candidate=mine.get(key, ""), reference=theirs.get(key, ""), heat=heat))
    return tuple(shown)


def share_identical(root: Path, frames: tuple[FrameResult, ...]) -> None:
    """Let byte-identical pairs of frames share one file on disk (a hard link)."""
    for frame in frames:
        if not frame.candidate or not frame.reference:
            continue
        mine, theirs = root / frame.candidate, root / frame.reference
        if mine.read_bytes() == theirs.read_bytes():
            theirs.unlink()
            os.link(mine, theirs)
