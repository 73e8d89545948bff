"""The environment ledger: everything outside a case that can change a bit of output, as JSON values.

Package versions come from installed metadata, so that nothing is imported for them. Environment variables are taken
from an allow-list of names that steer numerics; no other variable is ever recorded.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
from operator import attrgetter
from pathlib import Path
from typing import Any

from conformance.errors import bad_field

# Distributions whose version can change what either side computes or how it is measured.
PACKAGES = (
    "torch",
    "diffusers",
    "transformers",
    "peft",
    "accelerate",
    "numpy",
    "safetensors",
    "triton",
    "scikit-image",
    "open-clip-torch",
    "pillow",
    "torchvision",
)
_VARIABLES = (
    "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_DEVICE_ORDER",
    "CUDA_LAUNCH_BLOCKING",
    "CUDA_VISIBLE_DEVICES",
    "KMP_AFFINITY",
    "KMP_BLOCKTIME",
    "NVIDIA_TF32_OVERRIDE",
)
_VARIABLE_PREFIXES = ("ATEN_", "CUDNN_", "DNNL_", "MKL_", "NCCL_", "OMP_", "ONEDNN_", "PYTORCH_", "TORCH_", "TRITON_")
# Not allow_tf32 and get_float32_matmul_precision: those raise once somebody has set an fp32_precision (torch 2.9).
_FP32_PRECISION = ("cuda.matmul", "cudnn.conv", "mkldnn.matmul", "mkldnn.conv")


def settle() -> None:
    """torch's settings for runs that are compared: float32 is float32, and a repeated convolution has the same bits.

    torch's own defaults are TF32 in cuDNN's convolutions (2^-11 instead of 2^-24) and algorithms that add atomically.
    """
    import torch

    for name in _FP32_PRECISION:
        attrgetter(name)(torch.backends).fp32_precision = "ieee"
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def versions() -> dict[str, str]:
    """Python and package versions; ``absent`` for a package that is not installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def cache_root() -> Path:
    """Where built checkpoints are kept: ``$CONFORMANCE_CACHE``, or ``~/.cache/diffusion-conformance``."""
    root = os.environ.get("CONFORMANCE_CACHE")
    return Path(root) if root else Path.home() / ".cache" / "diffusion-conformance"


def cohort_device(device: str) -> str:
    """The device as thresholds and stored references name it: ``cpu``, or the accelerator's product name.

    CPU models are recorded in the ledger but share one name: that they agree is measured, not assumed by file.
    InputError when there is no such device here.
    """
    if device == "cpu":
        return device
    import torch

    if not torch.cuda.is_available():
        raise bad_field("command line", "device", device, "cpu: torch sees no CUDA device here")
    return torch.cuda.get_device_name(torch.device(device))


def ledger(device: str) -> dict[str, Any]:
    """Everything that identifies the environment of a run on ``device`` (``cpu``, ``cuda`` or ``cuda:N``)."""
    import torch

    return {
        "versions": versions(),
        "platform": platform.platform(),
        "cpu": {
            "model": cpu_model(),
            "count": os.cpu_count(),
            "capability": torch.backends.cpu.get_cpu_capability(),
        },
        "threads": {"intra": torch.get_num_threads(), "inter": torch.get_num_interop_threads()},
        "device": {"kind": device, "name": cohort_device(device), **({} if device == "cpu" else _cuda(device))},
        "flags": _flags(),
        "variables": variables(),
    }


def variables() -> dict[str, str]:
    """The allow-listed environment variables that are set."""
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if name in _VARIABLES or name.startswith(_VARIABLE_PREFIXES)
    }


def cpu_model() -> str:
    """The processor's product name, or its architecture where the system does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def _cuda(device: str) -> dict[str, Any]:
    import torch

    properties = torch.cuda.get_device_properties(torch.device(device))
    driver = Path("/sys/module/nvidia/version")
    return {
        "capability": f"{properties.major}.{properties.minor}",
        "memory_bytes": properties.total_memory,
        "multiprocessors": properties.multi_processor_count,
        "count": torch.cuda.device_count(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "driver": driver.read_text().strip() if driver.is_file() else None,
    }


def _flags() -> dict[str, Any]:
    """torch settings that choose another kernel or another rounding."""
    import torch

    cuda, cudnn = torch.backends.cuda, torch.backends.cudnn
    return {
        **{f"{name}.fp32_precision": attrgetter(name)(torch.backends).fp32_precision for name in _FP32_PRECISION},
        "cuda_matmul_bf16_reduced_precision": cuda.matmul.allow_bf16_reduced_precision_reduction,
        "cudnn_enabled": cudnn.enabled,
        "cudnn_benchmark": cudnn.benchmark,
        "cudnn_deterministic": cudnn.deterministic,
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "mkldnn_enabled": torch.backends.mkldnn.enabled,
        "sdpa_flash": cuda.flash_sdp_enabled(),
        "sdpa_memory_efficient": cuda.mem_efficient_sdp_enabled(),
        "sdpa_math": cuda.math_sdp_enabled(),
        "sdpa_cudnn": cuda.cudnn_sdp_enabled(),
        "default_dtype": str(torch.get_default_dtype()).removeprefix("torch."),
    }
