"""The engine's sample of a run, as files beside its result: all that a store would keep, so that it can be accepted.

Frames and latents are there already (``conformance.artifacts``). Beside them, by role in ``CaseResult.files``:
``candidate_sound`` (safetensors: ``audio`` fp32 [B,C,N], ``rate`` int64), ``candidate_taps`` (safetensors) and
``candidate_trace`` (JSON), as in ``ground_truth.artifacts``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from conformance.errors import InputError
from conformance.generator import Sample, output_digests
from conformance.jsonio import write_atomic
from conformance.results import CaseResult
from ground_truth import artifacts


def write(sample: Sample, root: Path, folder: str) -> dict[str, str]:
    """Returns {role: path relative to root}."""
    parts = {"taps": ("safetensors", artifacts.pack(artifacts.kept(sample)))}
    parts["trace"] = ("json", artifacts.dump_trace(sample.trace))
    if sample.audio is not None:
        sound = {"audio": torch.from_numpy(sample.audio), "rate": torch.tensor([sample.audio_rate or 0])}
        parts["sound"] = ("safetensors", artifacts.pack(sound))
    files = {}
    for role, (suffix, data) in parts.items():
        files[f"candidate_{role}"] = f"{folder}/candidate-{role}.{suffix}"
        write_atomic(root / files[f"candidate_{role}"], data)
    return files


def read(result: CaseResult, root: Path) -> Sample:
    """The engine's sample of a result whose files lie below ``root``.

    InputError when the run saved none, a file is missing or malformed, or it is not what the run judged.
    """
    where = f"{root}: {result.id}, gate {result.gate!r}"
    if "candidate_trace" not in result.files or not result.outputs:
        raise InputError(f"{where}: holds no sample ({result.verdict}); expected a case that was judged")

    def data(role: str) -> bytes:
        path = root / result.files[f"candidate_{role}"]
        try:
            return path.read_bytes()
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None

    sound: dict[str, torch.Tensor] = {}
    if "candidate_sound" in result.files:
        sound = artifacts.unpack(data("sound"), f"{where}: sound", ("audio", "rate"))
    sample = Sample(
        frames=_frames(result, root),
        frames_float=None,
        audio=sound["audio"].numpy() if sound else None,
        audio_rate=int(sound["rate"]) if sound else None,
        latents=artifacts.unpack(data("latents"), f"{where}: latents"),
        trace=artifacts.load_trace(data("trace"), f"{where}: trace"),
        tensors=artifacts.unpack(data("taps"), f"{where}: taps"),
        resolved=result.resolved.get("candidate", {}),
        ledger=result.ledger.get("candidate", {}),
        shared=result.shared,
    )
    found = output_digests(sample)
    other = [name for name in found | result.outputs if found.get(name) != result.outputs.get(name)]
    if other:
        raise InputError(f"{where}: {other[0]} is not what the run judged: its files were changed")
    return sample


def _frames(result: CaseResult, root: Path) -> np.ndarray:
    """[B,F,H,W,3]"""
    paths = {(frame.batch, frame.index): root / frame.candidate for frame in result.frames if frame.candidate}
    if not paths:
        raise InputError(f"{root}: {result.id}: holds no frames")
    try:
        images = {key: np.asarray(Image.open(path, formats=["PNG"])) for key, path in paths.items()}
        B, F = (max(key[axis] for key in images) + 1 for axis in (0, 1))
        return np.stack([np.stack([images[b, f] for f in range(F)]) for b in range(B)])
    except (OSError, KeyError, ValueError, SyntaxError) as error:
        raise InputError(f"{root}: {result.id}: frames cannot be read ({error})") from None
