"""Words and numbers of a report, and its plots, thumbnails and text summaries."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from report_fixture import FAIL_ID, hostile_case, make_results

from conformance.results import MetricResult, Results, StepResult
from conformance.verdicts import Verdict
from reports import thumbs
from reports.console import summary_table
from reports.labels import brief_reason, limit_text, tap_words
from reports.markdown import summary_md
from reports.plots import Level, step_plot
from reports.text import duration, href, number, one_line, plain, visible
from reports.thumbs import Budget, thumb
from reports.view_frames import worst_frame
from reports.view_tables import metric_row, sides


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.0, "0"),
        (1.0, "1"),
        (0.912, "0.912"),
        (0.9999996, "1 − 4e-07"),
        (1.0000003, "1 + 3e-07"),
        (3.1e-5, "3.10e-05"),
        (-0.25, "−0.25"),
        (31.4, "31.4"),
        (math.inf, "∞"),
        (-math.inf, "−∞"),
        (math.nan, "NaN"),
    ],
)
def test_numbers_read_as_a_person_writes_them(value: float | None, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0.417, "0.42 s"),
        (12.34, "12.3 s"),
        (59.97, "1 min 00 s"),
        (185, "3 min 05 s"),
        (7620, "2 h 07 min"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@given(st.text())
def test_visible_text_has_no_character_that_hides_or_reorders(text: str) -> None:
    shown = visible(text)
    assert not re.search(
        "[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]", shown
    )
    assert "\n" not in one_line(text)


def test_long_values_are_cut_and_say_so() -> None:
    assert plain("x" * 700) == "x" * 600 + "… (100 more characters)"


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_links_are_relative_paths_whatever_the_file_is_called(path: str) -> None:
    assert re.fullmatch(r"\./[A-Za-z0-9%/._~-]*", href(path))


def test_limits_show_their_direction() -> None:
    assert limit_text("ssim", 0.95) == "≥ 0.95"
    assert limit_text("mean_abs_diff", 2.0) == "≤ 2"
    assert limit_text("ssim", None) == ""
    assert limit_text("from the future", 2.0) == "2"


def test_taps_in_words() -> None:
    assert tap_words("step.003/uncond/block.12/attn1/out") == "step 3, unconditional branch, block 12, attn1/out"
    assert tap_words("step.000/guided_x0/video") == "step 0, guided_x0/video"
    assert tap_words("latents/final/video") == "latents/final/video"


def test_a_value_on_its_limit_is_within_with_no_margin() -> None:
    row = metric_row("ssim", MetricResult(value=0.97, worst=0.95, limit=0.95, ok=True))
    assert (row.judged, row.margin) == ("within", "+0")


def test_an_unmeasured_metric_is_never_a_dash_alone() -> None:
    row = metric_row("clip", MetricResult(value=None, worst=None, limit=0.9, note="no weights"))
    assert (row.judged, row.tone, row.note) == ("not measured", "none", "no weights")


def test_sides_put_differences_first_and_see_past_what_is_shown() -> None:
    both = sides({"a": 1, "b": {"c": "x" * 700}, "d": 2}, {"a": 1, "b": {"c": "x" * 699 + "y"}, "e": 3})
    found = [(row.name, row.differs, row.one_sided) for row in both.rows]
    assert found == [("b.c", True, False), ("a", False, False), ("d", False, True), ("e", False, True)]
    assert (both.rows[2].reference, both.different, both.one_sided) == ("(absent)", 1, 2)


def test_the_worst_frame_is_the_one_behind_the_failed_metric(tmp_path: Path) -> None:
    case = make_results(tmp_path).cases[2]
    assert worst_frame(case)[0].index == 5
    by_psnr = replace(case, metrics={"psnr": MetricResult(value=28.0, worst=24.0, limit=30.0, ok=False)})
    assert (worst_frame(by_psnr)[0].index, worst_frame(by_psnr)[1]) == (0, "psnr")
    frames = (*case.frames[:3], replace(case.frames[3], metrics={"psnr": math.nan}))
    broken = {"psnr": MetricResult(value=math.nan, worst=math.nan, limit=30.0, ok=False)}
    assert worst_frame(replace(case, metrics=broken, frames=frames))[0].index == 3


def test_a_reason_names_the_worst_two_limits_and_counts_the_rest() -> None:
    metrics = {
        name: MetricResult(value=9, worst=9, limit=1, ok=False) for name in ("ssim", "psnr", "clip", "tile_ssim")
    }
    metrics["max_abs_diff"] = MetricResult(value=0, worst=0, limit=1, ok=True)
    case = replace(hostile_case(), metrics=metrics)
    texts = [f"{name} is 9, not <= 1 (output 0 frame 3)" for name in ("clip", "psnr", "tile_ssim", "ssim")]
    unmeasured = "limits on metrics that were not measured: nothing"
    long = replace(case, reason="; ".join([*texts, unmeasured]))
    assert brief_reason(long) == f"{texts[0]}; {texts[1]}; and 2 more, see the table; {unmeasured}"
    for reason in ("; ".join(texts[:2]), "engine failed: a; b; c; d", "", unmeasured):
        assert brief_reason(replace(case, reason=reason)) == reason
    assert "and 2 more, see the table" in summary_md(Results(run={}, cases=(long,)))
    assert all(text in Results(run={}, cases=(long,)).as_dict()["cases"][0]["reason"] for text in texts)


def _points(svg: str, name: str) -> list[tuple[float, float]]:
    line = re.search(rf'polyline class="{name}" points="([^"]*)"', svg)
    assert line
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in line[1].split())]


def test_the_step_plot_is_logarithmic_with_zero_below_every_decade() -> None:
    steps = [StepResult(step=i, video=value, audio=None) for i, value in enumerate((0.0, 1e-6, 1e-5, 1e-4))]
    svg = str(step_plot(steps, [Level("limit", 1e-5, "limit")]))
    ET.fromstring(svg)
    points = _points(svg, "video")
    ys = [y for _, y in points]
    assert ys[1] - ys[2] == pytest.approx(ys[2] - ys[3], abs=0.11)
    assert ys[0] > ys[1]
    assert svg.count("hollow") == 1
    limit = re.search(r'class="limit" x1="[^"]*" x2="[^"]*" y1="([^"]*)"', svg)
    assert limit
    assert float(limit[1]) == ys[2]
    assert "audio" not in svg


def test_the_noise_band_reaches_from_the_axis_to_the_floor() -> None:
    steps = [StepResult(step=i, video=value, audio=None) for i, value in enumerate((1e-6, 1e-5, 1e-4))]
    svg = str(step_plot(steps, [Level("floor", 1e-5, "noise floor"), Level("defect", math.nan, "x")]))
    band = re.search(r'<rect class="band" x="62" y="([^"]*)" width="[^"]*" height="([^"]*)"', svg)
    assert band
    assert float(band[1]) == _points(svg, "video")[1][1]
    assert float(band[1]) + float(band[2]) == pytest.approx(220 - 34)
    assert "noise floor 1.00e-05" in svg
    assert "defect" not in svg


def test_the_step_plot_draws_what_is_not_finite_as_a_cross() -> None:
    steps = [StepResult(step=i, video=value, audio=None) for i, value in enumerate((1e-6, math.nan, math.inf))]
    svg = str(step_plot(steps))
    assert svg.count("cross") == 2
    assert len(_points(svg, "video")) == 1
    assert "nan" not in svg
    assert str(step_plot([])) == ""


@settings(max_examples=50)
@given(st.lists(st.floats(min_value=0) | st.just(math.nan) | st.none(), max_size=5), st.floats(min_value=0) | st.none())
def test_any_steps_give_a_plot_inside_its_frame(values: list[float | None], limit: float | None) -> None:
    levels = [] if limit is None else [Level(kind, limit, kind) for kind in ("limit", "floor", "defect")]
    svg = str(step_plot([StepResult(step=i, video=value, audio=value) for i, value in enumerate(values)], levels))
    for text in re.findall(r'(?:cy|y1)="([^"]*)"', svg):
        assert 0 <= float(text) <= 220


def _noise(path: Path, size: int) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (size, size, 3), np.uint8)).save(path)


def test_thumbnails_keep_to_the_budget_and_small_pictures_keep_their_pixels(tmp_path: Path) -> None:
    _noise(tmp_path / "a.png", 64)
    small = thumb(tmp_path, "a.png", 128, Budget(100_000, [1, 1]))
    assert small.problem == thumbs.LEFT_OUT
    budget = Budget(100_000, [3, 1])
    budget.next_case()
    small = thumb(tmp_path, "a.png", 128, budget)
    assert small.uri.startswith("data:image/webp;base64,")
    assert (small.width, small.height) == (64, 64)
    taken = [thumb(tmp_path, "a.png", 128, budget).uri for _ in range(9)]
    assert sum(map(len, taken)) + len(small.uri) <= 75_000
    assert taken[-1] == ""
    budget.next_case()
    assert thumb(tmp_path, "a.png", 128, budget).uri


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n" + b"\x00" * 40])
def test_a_damaged_picture_is_named_and_does_no_harm(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    budget = Budget(100_000, [1])
    budget.next_case()
    assert thumb(tmp_path, "a.png", 128, budget).problem == "file cannot be read as an image"
    assert thumb(tmp_path, "b.png", 128, budget).problem == "file missing"


def test_a_truncated_picture_is_named(tmp_path: Path) -> None:
    _noise(tmp_path / "a.png", 64)
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(data[: len(data) // 2])
    budget = Budget(100_000, [1])
    budget.next_case()
    assert thumb(tmp_path, "a.png", 128, budget).problem == "file cannot be read as an image"


def test_the_job_summary_leads_with_what_did_not_pass(tmp_path: Path) -> None:
    text = summary_md(make_results(tmp_path))
    rest, passed = text.split("<details>")
    assert "2 of 11 cases passed, 2 failed, 1 broke off, 5 could not be judged, 1 waived." in rest
    assert FAIL_ID in rest
    assert not [line for line in rest.splitlines() if line.count("|") == 7 and "| Pass" in line]
    assert passed.count("| Pass") == 2
    for line in text.splitlines():
        if line.startswith("|"):
            assert line.count("|") in (4, 7), line  # a table of two gates, tables of cases


def test_the_job_summary_escapes_markup_and_table_bars() -> None:
    text = summary_md(Results(run={}, cases=(hostile_case(),)))
    assert "<script" not in text
    assert "`a`" not in text
    assert "\x00" not in text
    assert "&lt;script&gt;" in text


def test_the_job_summary_stays_short() -> None:
    case = replace(hostile_case(), reason="x" * 5000)
    text = summary_md(Results(run={}, cases=tuple(replace(case, id=f"case-{i}") for i in range(500))))
    assert len(text) < 60_000
    assert "400 more are in the report." in text


def test_the_terminal_table_fits_its_width_and_has_every_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = make_results(tmp_path)
    for width in (60, 120, 200):
        monkeypatch.setenv("COLUMNS", str(width))
        text = summary_table(results)
        assert max(map(len, text.splitlines())) <= width
        assert "\x1b" not in text
        assert all(str(verdict) in text for verdict in Verdict)
    assert FAIL_ID in text
    assert "SSIM 0.912 (limit ≥ 0.95)" in text
    assert text.index("PASS_EXACT") < text.index("FAIL")


def test_the_markdown_summary_counts_verdicts_by_gate_where_there_are_several(tmp_path: Path) -> None:
    text = summary_md(make_results(tmp_path))
    assert (
        "| Verdict | self | reference |\n|---|---:|---:|\n| Fail | 1 | 1 |\n| Infrastructure error |  | 1 |\n" in text
    )
    one = tuple(case for case in make_results(tmp_path).cases if case.gate == "reference")
    assert "| Verdict | reference" not in summary_md(Results(run={}, cases=one))
