"""The official ``ltx-core`` and ``ltx-pipelines``, where the user has installed them or points to a checkout.

They are under the LTX-2 Community License, so nothing here depends on them: ``docs/official.md``.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
import tomllib
import types
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from conformance import guard
from conformance.errors import InputError, ReferenceMissing

SETTING = "CONFORMANCE_LTX_OFFICIAL"
_SOURCES = ("packages/ltx-core/src", "packages/ltx-pipelines/src")
_NEEDED = ("ltx_core", "ltx_pipelines", "einops", "scipy")
HOW = f"`make official` installs version 1.0.0, {SETTING}=/path/to/LTX-2 uses a checkout (docs/official.md)"


def install() -> str:
    """Make the packages importable and return their version.

    ReferenceMissing, saying how to get them, when they are absent; InputError when the setting names no checkout.
    """
    guard.install()
    _use_checkout()
    absent = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if absent:
        raise ReferenceMissing(f"official packages: no module {absent[0]!r}; {HOW}")
    try:
        with _stand_in("torchaudio"):  # spectrograms of audio *encoding*
            importlib.import_module("ltx_core.loader")  # first: ltx_core.quantization imports it in a circle
            importlib.import_module("ltx_core.model.audio_vae")
        with _stand_in("OpenImageIO"):  # EXR files, in 1.2.0
            importlib.import_module("ltx_pipelines.utils")
    except ImportError as error:
        raise ReferenceMissing(f"official packages: cannot be imported ({error}); {HOW}") from None
    return installed_version()


def installed_version() -> str:
    """The version of ``ltx_core`` that Python imports. ReferenceMissing when there is none or it has no version."""
    spec = importlib.util.find_spec("ltx_core")
    if spec is None or spec.origin is None:
        raise ReferenceMissing(f"official packages: no module 'ltx_core'; {HOW}")
    project = Path(spec.origin).parents[2] / "pyproject.toml"
    try:
        # a checkout: packages/ltx-core/src/ltx_core/__init__.py
        checkout = tomllib.loads(project.read_text()) if project.is_file() else None
        found = version("ltx-core") if checkout is None else checkout["project"]["version"]
    except (KeyError, OSError, tomllib.TOMLDecodeError, PackageNotFoundError):
        raise ReferenceMissing(f"official packages: {spec.origin}: no version is recorded; {HOW}") from None
    if not re.fullmatch(r"[0-9a-z.]+", str(found)):
        raise ReferenceMissing(f"official packages: version is {found!r}; expected numbers and dots")
    return str(found)


def _use_checkout() -> None:
    setting = os.environ.get(SETTING)
    if not setting:
        return
    for source in reversed(_SOURCES):
        path = Path(setting, source)
        if not path.is_dir():
            raise InputError(f"{SETTING} is {setting!r}: no folder {source}; expected a checkout of Lightricks/LTX-2")
        if str(path) not in sys.path:
            sys.path.insert(0, str(path))


@contextmanager
def _stand_in(name: str) -> Iterator[None]:
    """An empty module for one that the packages import at the top and nothing here calls, where it is absent."""
    try:
        importlib.import_module(name)
    except (ImportError, OSError):  # absent, or built for another torch
        sys.modules[name] = types.ModuleType(name)
        try:
            yield
        finally:
            del sys.modules[name]  # nobody else may take it for the real one
    else:
        yield
