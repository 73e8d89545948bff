"""Tests against the official packages: skipped where those are absent, red where they are there and do not import.

CI installs them first, so nothing is skipped there but what wants another version.
"""

from __future__ import annotations

import importlib.util
import os

import pytest

from conformance.errors import ReferenceMissing
from reference_impl.official import packages


def version() -> str:
    """The installed version, or nothing. A broken installation is an error, as is a setting without packages."""
    try:
        return packages.install()
    except ReferenceMissing:
        if importlib.util.find_spec("ltx_core") is not None or os.environ.get(packages.SETTING):
            raise
        return ""


VERSION = version()


def require(*versions: str) -> str:
    """The installed version; the test, or the module at whose top this is called, is skipped for other ``versions``."""
    if VERSION not in versions:
        found = f"are of version {VERSION}" if VERSION else "are absent"
        pytest.skip(f"the official packages {found}; wanted is {' or '.join(versions)}", allow_module_level=True)
    return VERSION


def only(*versions: str) -> pytest.MarkDecorator:
    """The same as a mark."""
    return pytest.mark.skipif(VERSION not in versions, reason=f"official packages: {VERSION or 'absent'}")
