"""Measure every field and write the table: ``python -m conformance.defects.fields --out docs/fields.md``."""

from __future__ import annotations

import argparse
from pathlib import Path

from conformance import guard


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the Markdown file to write")
    out = parser.parse_args().out
    guard.install()
    import torch

    torch.set_num_threads(1)
    from conformance.defects.fields.table import measured, rendered

    out.write_text(rendered(measured()))


if __name__ == "__main__":
    main()
