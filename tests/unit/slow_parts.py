"""Parameters that ``make test`` leaves to ``make test-slow``: what the suites of whole cases show in another way."""

from __future__ import annotations

import pytest

MODELS = [pytest.param("ltx-2", marks=pytest.mark.slow), "ltx-2.3"]
