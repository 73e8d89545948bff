"""Make diffusers, transformers and open_clip importable beside a torchvision whose compiled library does not load.

PyPI's torchvision is linked against CUDA. Beside a CPU build of torch its library is not loaded, its operators have no
schemas, and ``import torchvision`` dies on the first registration for one of them. Packages that only look whether
torchvision is installed die with it. Defining the schemas of those operators is enough: everything in Python works, and
calling a compiled operator raises torchvision's own error. A torchaudio that does not load is hidden, so that the same
packages take it for absent.

Call :func:`install` before any of them is imported. It also sets what has to be set before torch computes or is asked
for a device.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys

# The operators torchvision registers from Python at import, whatever has been loaded (torchvision 0.28).
_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_VARIABLES = {
    # MKL: a row of a product has the same bits whatever the number of rows and their place in memory
    "MKL_CBWR": "AVX2,STRICT",
    # diffusers asks for the device at import, and asking CUDA itself would forbid it to every forked child
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
}
_keep_alive: list[object] = []  # the schemas vanish with their torch.library.Library


def install() -> None:
    """Set the variables that are not set; repair torchvision and hide torchaudio where they do not load."""
    for name, value in _VARIABLES.items():
        os.environ.setdefault(name, value)
    torchvision()
    torchaudio()


def torchvision() -> str:
    """Import torchvision, repaired where needed, and say how it went: ``absent``, ``loads`` or ``repaired``.

    Any import error other than the missing operators is torchvision's own and is raised unchanged.
    """
    if _absent("torchvision"):
        return "absent"
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        _forget("torchvision")
        _define_schemas()
        importlib.import_module("torchvision")
    return "repaired" if _keep_alive else "loads"


def torchaudio() -> str:
    """Import torchaudio and say how it went: ``absent``, ``loads`` or ``hidden`` (it does not load)."""
    if "torchaudio" in sys.modules and sys.modules["torchaudio"] is None:
        return "hidden"
    if _absent("torchaudio"):
        return "absent"
    try:
        importlib.import_module("torchaudio")
    except (ImportError, OSError, RuntimeError, AttributeError):
        _forget("torchaudio")
        sys.modules["torchaudio"] = None  # type: ignore[assignment]  # find_spec and import then say: not installed
        return "hidden"
    return "loads"


def _absent(package: str) -> bool:
    return package not in sys.modules and importlib.util.find_spec(package) is None


def _forget(package: str) -> None:
    """Drop what a failed import left behind."""
    for name in [name for name in sys.modules if name == package or name.startswith(f"{package}.")]:
        del sys.modules[name]


def _define_schemas() -> None:
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _SCHEMAS:
        library.define(schema)
    _keep_alive.append(library)
