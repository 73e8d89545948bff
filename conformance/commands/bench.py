"""``conformance bench``"""

from __future__ import annotations

import argparse
import importlib
import sys
from unittest.mock import patch

# name -> module whose ``main`` measures it and reads ``sys.argv``
BENCHES = {
    "parallel": "engine.parallel.bench",
    "judge": "conformance.metrics.bench",
    "report": "reports.bench",
    "kernels": "kernels.bench.split_rotary",
}


def main(options: argparse.Namespace) -> int:
    module = importlib.import_module(BENCHES[options.name])
    with patch.object(sys, "argv", [f"conformance bench {options.name}", *options.arguments]):
        return int(module.main() or 0)
