"""Is what a generator returned a Sample at all? Asked before anything is compared or written."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from conformance.errors import InputError, bad_field
from conformance.generator import Sample
from conformance.jsonio import dumps


def check_sample(sample: Any) -> None:
    """InputError with the field, what it is and what ``Sample`` promises.

    Values, sizes and counts are left alone: those are judged against the reference.
    """
    if not isinstance(sample, Sample):
        raise InputError(f"sample: is a {type(sample).__name__}; expected a Sample")
    _check_array("frames", sample.frames, "uint8", "[B,F,H,W,3]")
    if sample.frames_float is not None:
        _check_array("frames_float", sample.frames_float, "float32", "[B,F,H,W,3]")
    if sample.audio is not None:
        _check_array("audio", sample.audio, "float32", "[B,C,N]")
    if (sample.audio is None) != (sample.audio_rate is None):
        raise bad_field("sample", "audio_rate", sample.audio_rate, "a rate exactly when there is audio")
    if sample.audio_rate is not None and (type(sample.audio_rate) is not int or sample.audio_rate < 1):
        raise bad_field("sample", "audio_rate", sample.audio_rate, "a positive whole number of Hz")
    if not isinstance(sample.latents, dict):
        raise bad_field("sample", "latents", type(sample.latents).__name__, "tensors by name")
    for name, value in sample.latents.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor) or not value.is_floating_point():
            found = value.dtype if isinstance(value, torch.Tensor) else type(value).__name__
            raise bad_field("sample", f"latents[{name!r}]", str(found), "a tensor of real floating-point numbers")
    for field in ("resolved", "ledger"):
        _check_json(field, getattr(sample, field))
    if not isinstance(sample.shared, tuple) or not all(isinstance(name, str) for name in sample.shared):
        raise bad_field("sample", "shared", sample.shared, "a tuple of component names")


def _check_array(field: str, value: Any, dtype: str, shape: str) -> None:
    """``shape`` in the project's notation; a digit in it is a size that must be met."""
    sizes = shape.strip("[]").split(",")
    fits = (
        isinstance(value, np.ndarray)
        and str(value.dtype) == dtype
        and value.ndim == len(sizes)
        and all(not size.isdigit() or int(size) == found for size, found in zip(sizes, value.shape, strict=True))
    )
    if not fits:
        found = f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__
        raise bad_field("sample", field, found, f"a numpy array, {dtype} {shape}")


def _check_json(field: str, value: Any) -> None:
    if not isinstance(value, dict):
        raise bad_field("sample", field, type(value).__name__, "an object of JSON values")
    for name, item in value.items():
        try:
            dumps({name: item})
        except (TypeError, ValueError) as error:
            raise InputError(f"sample: {field}[{name!r}] is not a JSON value ({error})") from None
