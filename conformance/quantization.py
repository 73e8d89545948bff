"""What ``Case.quantization`` asks of a checkpoint, answered from its configuration and headers alone.

``fp8-cast``: weights and biases of the attention projections and feed-forward layers of every DiT block are held as
float8_e4m3fn and widened to the compute dtype for each product; everything else stays wide (the policy of that name in
ltx-core 1.0.0, ``ltx_core/quantization/fp8_cast.py``; head gates are not among them).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from conformance import checkpoint
from conformance.errors import InputError, bad_field
from conformance.jsonio import read_json

FP8_CAST = "fp8-cast"
HONOURED = ("none", FP8_CAST)
KEY = "quantization_config"  # of transformer/config.json, as in other diffusers folders
_SELECTED = re.compile(r"transformer_blocks\.\d+\.\w+\.(to_[qkv]|to_out\.0|net\.0\.proj|net\.2)\.(weight|bias)")
_SCALES = re.compile(r"(.*\.)?(\w*_scale|scale_(weight|input)|scaled_fp8)")
_WIDE = ("F64", "F32", "F16", "BF16")
_FP8 = "F8_E4M3"


def selects(name: str) -> bool:
    """Whether ``fp8-cast`` holds this tensor of the transformer (name of the diffusers layout) as float8_e4m3fn."""
    return _SELECTED.fullmatch(name) is not None


def resolve(quantization: str, folder: Path) -> str:
    """``none`` or ``fp8-cast``: what a case's quantization comes to on a checkpoint in the diffusers layout.

    Anything but ``checkpoint`` counts over what the checkpoint says. InputError names what cannot be honoured: another
    method or key in the metadata, scaled weights, float8 weights where they would be wide.
    """
    used = said(folder) if quantization == "checkpoint" else quantization
    where = f"{folder}: transformer"
    for name, dtype in sorted(checkpoint.dtypes(folder, "transformer").items()):
        if _SCALES.fullmatch(name):
            raise InputError(f"{where}: tensor {name!r}: scaled quantization is not implemented; expected no scales")
        if dtype == _FP8 and used == FP8_CAST and selects(name):
            continue
        if dtype == _FP8 and used != FP8_CAST:
            expected = f"one of {_WIDE}, or --quantization fp8-cast"
        else:
            expected = f"one of {_WIDE}"
        if dtype not in _WIDE:
            raise bad_field(f"{where}: tensor {name!r}", "dtype", dtype, expected)
    return used


def said(folder: Path) -> str:
    """What ``transformer/config.json`` says; nothing is ``none``. InputError for what is not implemented."""
    path = folder / "transformer" / "config.json"
    data: Any = read_json(path)
    found = data.get(KEY) if isinstance(data, dict) else None
    if found is None:
        return "none"
    for method in HONOURED[1:]:
        if found == {"quant_method": method}:
            return method
    expected = f"absent, or {{'quant_method': {FP8_CAST!r}}}; --quantization none or {FP8_CAST} counts over it"
    raise bad_field(str(path), KEY, found, expected)
