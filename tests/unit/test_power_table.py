"""The Markdown tables of docs/power.md: made from the evidence, below a marker line."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from test_power import CASES, known
from test_waivers import LAST, waiver

import thresholds
from conformance import cli
from conformance.matrix import all_cases
from thresholds import table


def test_tables_count_caught_and_waived(tmp_path: Path) -> None:
    found = thresholds.load(known(tmp_path, ["x", "y"], [waiver(defect="y", cases=f"*{CASES[1]}")], n=3))
    lines = list(table.tables(found.entries, all_cases(), LAST))
    assert "| seam | 3/3 | psnr 3, ssim 3 |" in lines
    assert "| x | 0/3 |  |" in lines
    assert "| y | 0/3, 1 w |  |" in lines
    assert f"| `{CASES[0]}` | 0.950 | 38 | x, y |  |" in lines
    assert f"| `{CASES[1]}` | 0.974 | 38 | x | y |" in lines
    assert "| diffusers | one-stage-t2v | fp32 | 3 | 3 | 1.0e-06 | 2.0e-06 | 5.0e-04 |" in lines
    after = list(table.tables(found.entries, all_cases(), date(2026, 6, 1)))
    assert any("expired after 2026-05-31" in line for line in after)


def test_what_stands_above_the_marker_stays(tmp_path: Path) -> None:
    limits, page = known(tmp_path / "limits", ["x"]), tmp_path / "power.md"
    page.write_text(f"# Title\n\nwords\n\n{table.MARKER}\n\nold\n")
    for _ in range(2):
        assert cli.main(["power", "--thresholds", str(limits), "--markdown", str(page)]) == 0
        text = page.read_text()
        assert text.startswith(f"# Title\n\nwords\n\n{table.MARKER}\n\n## Limits")
        assert "old" not in text
        assert text.endswith(" |\n")


def test_a_file_without_the_marker_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    limits, page = known(tmp_path / "limits", ["x"]), tmp_path / "notes.md"
    page.write_text("mine\n")
    assert cli.main(["power", "--thresholds", str(limits), "--markdown", str(page)]) == 2
    assert "has no line" in capsys.readouterr().err
    assert page.read_text() == "mine\n"
