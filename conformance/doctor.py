"""Is this machine fit for a run? Each check says ``ok``, ``warn`` (runs work, something is missing) or ``fail``."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from conformance import environment, guard
from conformance.errors import ConformanceError

PYTHONS = ((3, 11), (3, 12))
DISTRIBUTION = "diffusion-conformance"
IMPORT_NAMES = ("conformance", "reference_impl", "engine", "kernels", "ground_truth", "thresholds", "reports")
# Without these no case runs; the other packages of the ledger cost a metric or a kernel.
_NEEDED = ("torch", "diffusers", "transformers", "numpy", "safetensors", "scikit-image", "pillow")
_HOME = Path(__file__).resolve().parents[1]
_FREE_WARN, _FREE_FAIL = 2 * 2**30, 200 * 2**20  # bytes: a suite with all its artifacts; a tiny checkpoint

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Check:
    """One finding, in one line."""

    name: str
    status: Status
    message: str


def checks() -> list[Check]:
    """Every check, in the order a person would fix them."""
    return [
        python(),
        *packages(),
        *import_names(),
        torchvision(),
        torchaudio(),
        clip_weights(),
        gpu(),
        cache_folder(),
        disk(),
        limits(),
        stored_references(),
    ]


def render(found: list[Check]) -> str:
    """One aligned line a check, then a count."""
    width = max((len(check.name) for check in found), default=0)
    lines = [f"{check.status:4}  {check.name:{width}}  {check.message}" for check in found]
    counts = ", ".join(f"{sum(check.status == s for check in found)} {s}" for s in ("ok", "warn", "fail"))
    return "\n".join([*lines, counts])


def python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] in PYTHONS:
        return Check("python", "ok", version)
    return Check("python", "fail", f"{version}; expected {' or '.join(f'{a}.{b}' for a, b in PYTHONS)}")


def packages() -> Iterator[Check]:
    """Installed versions against the pins in the project's own metadata."""
    from packaging.requirements import Requirement

    try:
        lines = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        lines = []
        yield Check("pins", "warn", f"{DISTRIBUTION} is not installed, versions are not checked; pip install -e .")
    wanted = {item.name: item for item in map(Requirement, lines) if not item.marker or item.marker.evaluate()}
    for name, version in environment.versions().items():
        pin = wanted[name].specifier if name in wanted else None
        if version == "absent":
            yield Check(name, "fail" if name in _NEEDED else "warn", "not installed")
        elif pin is not None and version not in pin:
            yield Check(name, "warn", f"{version}; tested with {pin}, stored references and limits may not apply")
        elif name != "python":
            yield Check(name, "ok", version)


def import_names() -> Iterator[Check]:
    """Does every import name of the project lead to the project? A distribution called ``kernels`` exists, for one."""
    owners = importlib.metadata.packages_distributions()
    clean = True
    for name in IMPORT_NAMES:
        others = sorted(set(owners.get(name, ())) - {DISTRIBUTION})
        advice = f"; uninstall {', '.join(others)} or use an environment of your own" if others else ""
        spec = importlib.util.find_spec(name)
        origin = Path(spec.origin).resolve() if spec and spec.origin else None
        if origin is None or not origin.is_relative_to(_HOME / name):
            clean = False
            yield Check(f"import {name}", "fail", f"leads to {origin}, not to {_HOME / name}{advice}")
        elif others:
            clean = False
            yield Check(f"import {name}", "warn", f"another installed package has this name too{advice}")
    if clean:
        yield Check("import names", "ok", f"all lead to {_HOME}")


def torchvision() -> Check:
    try:
        outcome = guard.torchvision()
    except Exception as error:  # whatever a broken installation raises is the finding
        return Check("import torchvision", "fail", f"{type(error).__name__}: {_line(error)}")
    messages = {
        "loads": "loads",
        "repaired": "its compiled operators do not load (another build of torch); repaired, nothing here needs them",
        "absent": "not installed: no CLIP",
    }
    return Check("import torchvision", "warn" if outcome == "absent" else "ok", messages[outcome])


def torchaudio() -> Check:
    hidden = guard.torchaudio() == "hidden"
    return Check("import torchaudio", "ok", "does not load; hidden, nothing here needs it" if hidden else "no conflict")


def clip_weights() -> Check:
    """No package ships CLIP weights: they come from a file, a cache or the hub, or CLIP is not measured."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    hub = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    cached = sorted(path.name for path in hub.glob("models--*") if "clip" in path.name.lower())
    if cached:
        return Check("CLIP weights", "ok", f"in {hub}: {', '.join(cached)}; measured with --clip MODEL:TAG")
    return Check("CLIP weights", "warn", f"none in {hub}: CLIP is not measured without --clip MODEL:FILE.safetensors")


def gpu() -> Check:
    if importlib.util.find_spec("torch") is None:
        return Check("GPU", "warn", "unknown without torch")
    import torch

    if not torch.cuda.is_available():
        return Check("GPU", "ok", "none; cases run on the CPU, Triton kernels only in its interpreter")
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return Check("GPU", "ok", f"{', '.join(names)}, CUDA {torch.version.cuda}")


def cache_folder() -> Check:
    folder = environment.cache_root()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            pass
    except OSError as error:
        why = error.strerror or error
        return Check("cache folder", "fail", f"{folder} cannot be written ({why}); set CONFORMANCE_CACHE")
    return Check("cache folder", "ok", str(folder))


def disk() -> Check:
    cache = environment.cache_root().absolute()
    folder = next(path for path in (cache, *cache.parents) if path.is_dir())
    free = shutil.disk_usage(folder).free
    status: Status = "fail" if free < _FREE_FAIL else "warn" if free < _FREE_WARN else "ok"
    return Check("free disk", status, f"{free / 2**30:.1f} GiB at {folder}")


def limits() -> Check:
    try:
        import thresholds

        found = thresholds.load()
    except (ConformanceError, ImportError) as error:
        return Check("thresholds", "fail", str(error))
    return Check("thresholds", "ok", f"{len(found.entries)} cases have limits")


def stored_references() -> Check:
    try:
        from ground_truth import Store
    except ImportError as error:
        return Check("ground truth", "fail", str(error))
    store = Store()
    problems = store.verify()
    if problems:
        more = f" (and {len(problems) - 1} more: conformance gt verify)" if len(problems) > 1 else ""
        return Check("ground truth", "fail", f"{problems[0]}{more}")
    return Check("ground truth", "ok", f"{len(store.paths())} references, all whole")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
