"""A Sample as files and back. Safetensors, PNG and JSON only: nothing that is read can run code.

========================= ===========================================================================
``frames/bBB/fFFFF``       PNG, uint8 [H,W,3], one an output and frame
``latents``                safetensors, ``Sample.latents`` by name
``taps``                   safetensors, the kept tensors whose name matches ``KEPT``
``audio``                  safetensors, ``audio`` fp32 [B,C,N]
``trace``                  JSON, {tap: {dtype, shape, sha256, rms, max_abs, finite}} in recorded order
========================= ===========================================================================

``frames_float`` and all other kept tensors are not stored: their hashes and statistics are in the trace.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from conformance.errors import InputError, bad_field
from conformance.generator import Sample, Tap
from conformance.jsonio import dumps, number
from conformance.sample_check import check_sample
from ground_truth.manifest import Artifact, Manifest

# What curves over steps are drawn from: the state at the start of each step and after the last.
KEPT = re.compile(r"(step\.[0-9]+/latents|latents/final)/.+")


def encode(sample: Sample) -> Iterator[tuple[Artifact, bytes]]:
    """The artifacts of a sample with their bytes. InputError when it breaks its contract or has no frames."""
    check_sample(sample)
    if not sample.frames.size:
        raise bad_field("sample", "frames", list(sample.frames.shape), "[B,F,H,W,3], none of them 0")
    for b, frames_FHWC in enumerate(sample.frames):
        for f, frame_HWC in enumerate(frames_FHWC):
            file = io.BytesIO()
            Image.fromarray(np.ascontiguousarray(frame_HWC)).save(file, format="PNG")
            yield _artifact(_frame_name(b, f), "frame", file.getvalue())
    yield _artifact("latents", "latents", pack(sample.latents))
    yield _artifact("taps", "taps", pack(kept(sample)))
    if sample.audio is not None:
        yield _artifact("audio", "audio", pack({"audio": torch.from_numpy(sample.audio)}))
    yield _artifact("trace", "trace", dump_trace(sample.trace))


def decode(manifest: Manifest, read: Callable[[Artifact], bytes], where: str) -> Sample:
    """The inverse of :func:`encode`; ``read`` returns verified bytes. InputError when the parts do not fit together."""
    parts = {artifact.name: artifact for artifact in manifest.artifacts}
    B, F, H, W, C = manifest.frames
    listed = sum(artifact.role == "frame" for artifact in manifest.artifacts)
    if listed != B * F:
        raise InputError(f"{where}: lists {listed} frames; expected {B * F} for shape {list(manifest.frames)}")
    expected = {_frame_name(b, f): "frame" for b in range(B) for f in range(F)}
    expected |= {name: name for name in ("latents", "taps", "trace")}
    expected |= {} if manifest.audio_rate is None else {"audio": "audio"}
    if {name: artifact.role for name, artifact in parts.items()} != expected:
        odd = sorted(parts.keys() ^ expected.keys()) or sorted(parts)
        raise InputError(f"{where}: artifact {odd[0]!r} is missing, unexpected or of the wrong role")
    try:
        frames = np.empty((B, F, H, W, C), np.uint8)
    except (MemoryError, ValueError):
        raise bad_field(where, "frames", list(manifest.frames), "a shape that fits in memory") from None
    for b in range(B):
        for f in range(F):
            name = _frame_name(b, f)
            frames[b, f] = _image(read(parts[name]), (H, W), f"{where}: {name}")
    audio = None
    if manifest.audio_rate is not None:
        audio = unpack(read(parts["audio"]), f"{where}: audio", ("audio",))["audio"].numpy()
    return Sample(
        frames=frames,
        frames_float=None,
        audio=audio,
        audio_rate=manifest.audio_rate,
        latents=unpack(read(parts["latents"]), f"{where}: latents"),
        trace=load_trace(read(parts["trace"]), f"{where}: trace"),
        tensors=unpack(read(parts["taps"]), f"{where}: taps"),
        resolved=manifest.resolved,
        ledger=manifest.ledger,
        shared=manifest.shared,
    )


def _artifact(name: str, role: str, data: bytes) -> tuple[Artifact, bytes]:
    return Artifact(name=name, role=role, sha256=hashlib.sha256(data).hexdigest(), bytes=len(data)), data


def _frame_name(b: int, f: int) -> str:
    return f"frames/b{b:02d}/f{f:04d}"


def kept(sample: Sample) -> dict[str, torch.Tensor]:
    """The taps whose tensors are stored."""
    return {name: tensor for name, tensor in sample.tensors.items() if KEPT.fullmatch(name)}


def dump_trace(taps: dict[str, Tap]) -> bytes:
    return dumps({name: asdict(tap) for name, tap in taps.items()}, indent=None).encode()


def pack(tensors: dict[str, torch.Tensor]) -> bytes:
    """As a safetensors file."""
    # clone: safetensors refuses tensors that share memory
    return save_tensors({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()})


def unpack(data: bytes, where: str, names: tuple[str, ...] | None = None) -> dict[str, torch.Tensor]:
    """The inverse of ``pack``. InputError when it is no such file, or holds other tensors than ``names``."""
    try:
        tensors = load_tensors(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise InputError(f"{where}: not a safetensors file ({error})") from None
    if names is not None and tensors.keys() != set(names):
        raise InputError(f"{where}: holds tensors {sorted(tensors)}; expected {sorted(names)}")
    return tensors


def _image(data: bytes, size_HW: tuple[int, int], where: str) -> np.ndarray[Any, Any]:
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            found = (image.height, image.width, image.mode)
            if found != (*size_HW, "RGB"):
                raise InputError(f"{where}: image is {found}; expected {(*size_HW, 'RGB')}")
            return np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{where}: not a PNG image ({error})") from None


def load_trace(data: bytes, where: str) -> dict[str, Tap]:
    try:
        return {str(name): _tap(item) for name, item in json.loads(data).items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{where}: malformed ({error})") from None


def _tap(item: dict[str, Any]) -> Tap:
    item = {**item, "shape": tuple(item["shape"])}
    return Tap(**{**item, "rms": number(item["rms"]), "max_abs": number(item["max_abs"])})
