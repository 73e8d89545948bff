"""What the page decides beside its tables: layouts, power, gap and oracle, timeline, tiles, sound, what was seen."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import re
import wave
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from report_fixture import FAIL_ID, make_results

from conformance.results import CaseResult, FrameResult, MetricResult, Results
from conformance.verdicts import Verdict
from reports.accept import acceptance, fingerprint
from reports.sound import sound_view
from reports.thumbs import Budget
from reports.tiles import tiles
from reports.timeline import LEFT, RIGHT, WIDTH, timeline
from reports.view import page
from reports.view_findings import gap_view, oracle_view, step_view
from reports.view_frames import frames_view
from reports.view_layouts import layouts_view
from reports.view_power import power_table, power_view

NAME = "ltx-2.3/one-stage-t2v/cfg"


def _case(layout: str = "single", verdict: Verdict = Verdict.PASS, **more: Any) -> CaseResult:
    values: dict[str, Any] = {"gate": "reference" if layout == "single" else "parallel", "axes": {"layout": layout}}
    return CaseResult(id=f"{NAME}@{layout}+diffusers-fp32", verdict=verdict, reason="", **(values | more))


def _failing(root: Path) -> CaseResult:
    return next(case for case in make_results(root).cases if case.id == FAIL_ID)


def _budget(**more: int) -> Budget:
    budget = Budget(10**6, [1], **more)
    budget.next_case()
    return budget


def test_the_layout_matrix_has_a_row_a_case_and_a_column_a_layout() -> None:
    judged = {"parallel.final": MetricResult(value=1e-6, worst=1.3e-6, limit=4e-6, ok=True)}
    cases = [_case("tp2", metrics=judged), _case("cfg2", Verdict.PASS_EXACT), _case(), _case(gate="self")]
    found = layouts_view(cases)
    assert found is not None
    assert found.columns == ("single", "cfg2", "tp2")
    assert [row.name for row in found.rows] == [f"{NAME}+diffusers-fp32"]
    texts = [[(cell.label, cell.distance) for cell in cells] for cells in found.rows[0].cells]
    assert texts == [[("Pass", ""), ("Pass", "")], [("Pass, exact", "bit-equal")], [("Pass", "1.30e-06")]]
    assert layouts_view([_case()]) is None
    assert layouts_view([]) is None


def test_the_gates_of_a_case_share_a_row_led_by_the_worst(tmp_path: Path) -> None:
    cases = (_case(), _case(gate="self", verdict=Verdict.FAIL), _case("tp2"))
    made = page(Results(run={}, cases=cases), tmp_path)
    assert made.gates == ("self", "reference", "parallel")
    labels = [tuple(gate.label if gate else "" for gate in row.gates) for row in made.rows]
    assert labels == [("Fail", "Pass", ""), ("", "", "Pass")]
    assert made.rows[0].lead.endswith("-self")
    assert len(made.rows[0].anchors.split()) == 2


def test_power_counts_waived_defects_on_neither_side() -> None:
    power = {"caught": ["a", "b"], "missed": ["c"], "waived": [{"defect": "d", "reason": "r", "owner": "o"}]}
    found = power_view(_case(evidence={"power": power}))
    assert found is not None
    assert (found.share, found.full, found.missed) == ("2 of 3", False, ("c",))
    assert [(waiver.defect, waiver.words) for waiver in found.waived] == [("d", "r, owner o, until ?")]
    table = power_table([_case(evidence={"power": power}), _case("tp2", evidence={"power": {"caught": ["c"]}})])
    assert table is not None
    assert table.summary == "3 of 4 defects caught over 2 cases, 1 missed"
    assert table.columns == (("c", 1), ("a", 0), ("b", 0), ("d", 0))
    assert [[sign for _, sign in row.marks] for row in table.rows] == [["○", "●", "●", "w"], ["●", "", "", ""]]


@pytest.mark.parametrize("power", [None, {}, [], {"caught": None}, {"caught": []}, "x"])
def test_evidence_of_another_version_has_no_power(power: Any) -> None:
    case = _case(evidence={"power": power})
    assert power_view(case) is None
    assert power_table([case]) is None


@pytest.mark.parametrize(
    ("state", "tone"), [("exact", "exact"), ("known", "waived"), ("new", "bad"), ("grown", "bad"), ("shrunk", "good")]
)
def test_a_gap_says_its_state_and_its_size(state: str, tone: str) -> None:
    gap = gap_view(_case(gap={"state": state, "metric": "latents.rel_l2", "measured": 0.5, "recorded": None}))
    assert gap is not None
    assert (gap.short, gap.tone) == (state, tone)
    assert gap.words.endswith(": Relative L2 0.5, recorded –") == (state != "exact")
    assert gap_view(_case()) is None


def test_the_oracle_says_who_is_closer() -> None:
    found = oracle_view(_case(oracle={"finding": "REFERENCE_WORSE", "rms_ratio": 0.5}))
    assert found is not None
    assert (found.finding, found.tone, found.numbers) == ("Reference worse", "good", (("ratio of RMS", "0.5"),))
    assert found.sentence == "The candidate is closer to the truth than the reference."
    assert oracle_view(_case()) is None


def test_the_plot_of_the_steps_has_floor_limit_and_defect(tmp_path: Path) -> None:
    case = _failing(tmp_path)
    limits = {"latents.rel_l2": {"noise_floor": 1e-4, "smallest_defect": {"name": "<b>", "value": 0.05}}}
    svg = str(step_view(replace(case, evidence={"limits": limits})))
    ET.fromstring(svg)
    for words in ('class="band"', "noise floor 0.0001", "limit 0.002", "smallest defect (&lt;b&gt;) 0.05"):
        assert words in svg


def _frames(values: list[float | None], name: str = "ssim") -> list[FrameResult]:
    return [
        FrameResult(batch=0, index=index, metrics={} if value is None else {name: value})
        for index, value in enumerate(values)
    ]


def test_the_timeline_marks_the_worst_frame_and_leaves_gaps_for_given_ones() -> None:
    frames = _frames([None, 0.9, 0.5, 0.8, None, 1.0])
    svg = str(timeline(frames, ["ssim", "psnr"], frames[2]))
    ET.fromstring(svg)
    mark = re.search(r'<circle class="worst" cx="([^"]*)" cy="([^"]*)"', svg)
    assert mark
    assert float(mark[1]) == pytest.approx(LEFT + (WIDTH - LEFT - RIGHT) * 2 / 5)
    assert float(mark[2]) == max(float(y) for y in re.findall(r'class="dot video" cx="[^"]*" cy="([^"]*)"', svg))
    pen = re.search(r'd="([^"]*)"', svg)
    assert pen
    assert (pen[1].count("M"), pen[1].count("L")) == (2, 2)
    assert "worst is frame 2" in svg
    assert str(timeline(frames[:1], ["ssim"], None)) == str(timeline(frames, ["clip"], None)) == ""


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats() | st.none(), min_size=2, max_size=60))
def test_any_values_stay_inside_the_timeline(values: list[float | None]) -> None:
    svg = str(timeline(_frames(values), ["ssim"], None))
    for text in re.findall(r' (?:cy|y1)="([^"]*)"', svg):
        assert 0 <= float(text) <= 44


def test_the_worst_tile_is_the_one_that_differs_most(tmp_path: Path) -> None:
    reference = np.full((70, 100, 3), 90, np.uint8)
    candidate = reference.copy()
    candidate[64:, 96:] += 30  # the corner tile is 4 x 6 pixels
    for name, picture in (("c", candidate), ("r", reference)):
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    found = tiles(tmp_path, FrameResult(batch=0, index=0, metrics={}, candidate="c.png", reference="r.png"))
    assert found is not None
    assert (found.x, found.y, found.width, found.height) == (96, 64, 4, 6)
    assert "30 levels at x 96, y 64" in found.words
    assert found.grid == "M32 0V70M64 0V70M96 0V70M0 32H100M0 64H100"
    for other in ("r.png", "missing.png"):
        assert tiles(tmp_path, FrameResult(batch=0, index=0, metrics={}, candidate=other, reference="r.png")) is None


def _wav(path: Path, audio_NC: np.ndarray, width: int = 2) -> None:
    with wave.open(str(path), "wb") as file:
        file.setparams((audio_NC.shape[1], width, 16000, 0, "NONE", ""))
        file.writeframes((audio_NC * 32767).astype("<i2").tobytes())


def _sounding(root: Path, **more: Any) -> CaseResult:
    tone = np.sin(2 * np.pi * 4000 * np.arange(16000) / 16000)[:, None] * [0.5, 0.25]
    _wav(root / "c.wav", tone)
    _wav(root / "r.wav", tone * [1, 0])
    return _case(files={"candidate_audio": "c.wav", "reference_audio": "r.wav"}, **more)


def test_sound_has_a_lane_a_channel_and_a_spectrogram_a_side(tmp_path: Path) -> None:
    found = sound_view(tmp_path, _sounding(tmp_path), _budget())
    assert found is not None
    assert found.words == "1.00 s, 2 channels, 16000 Hz"
    lanes = re.findall(r'<polygon class="(candidate|reference)" points="([^"]*)"', str(found.waveform))
    assert [side for side, _ in lanes] == ["candidate", "reference"] * 2
    heights = [max(y) - min(y) for y in ([float(p.split(",")[1]) for p in points.split()] for _, points in lanes)]
    assert heights[:2] == pytest.approx([2 * 0.46 * 64] * 2, rel=0.02)
    assert heights[2] == pytest.approx(0.46 * 64, rel=0.02)
    assert heights[3] == 0
    assert [title.split(",")[0] for title, _ in found.spectra] == ["Candidate", "Reference", "Difference"]
    assert all(picture.uri.startswith("data:image/webp") for _, picture in found.spectra)


def test_equal_sound_is_drawn_once(tmp_path: Path) -> None:
    found = sound_view(tmp_path, _sounding(tmp_path, verdict=Verdict.PASS_EXACT), _budget())
    assert found is not None
    assert found.words.endswith("both sides equal")
    assert len(found.spectra) == 1


def test_a_spectrogram_shows_the_tone_whatever_its_loudness(tmp_path: Path) -> None:
    pictures = []
    for loudness in (0.8, 0.05):
        _wav(tmp_path / "c.wav", loudness * np.sin(2 * np.pi * 4000 * np.arange(16000) / 16000)[:, None])
        found = sound_view(tmp_path, _case(files={"candidate_audio": "c.wav"}), _budget())
        assert found is not None
        data = base64.b64decode(found.spectra[0][1].uri.partition(",")[2])
        pictures.append(np.array(Image.open(io.BytesIO(data)).convert("L"), dtype=float))
    rows = pictures[0][:, 100:200].mean(axis=1)
    assert abs(int(rows.argmax()) - len(rows) // 2) <= 1  # 4000 Hz of 8000
    assert rows[: len(rows) // 4].max() < 60
    assert np.abs(pictures[0] - pictures[1])[:, 100:200].mean() < 12


@pytest.mark.parametrize("damage", ["empty", "text", "missing", "cut", "8 bits"])
def test_sound_that_cannot_be_read_is_no_sound(tmp_path: Path, damage: str) -> None:
    case = _sounding(tmp_path)
    for name in ("c.wav", "r.wav"):
        if damage == "8 bits":
            _wav(tmp_path / name, np.zeros((16, 1)), width=1)
            continue
        data = {"empty": b"", "text": b"RIFF", "missing": b"", "cut": (tmp_path / name).read_bytes()[:44]}[damage]
        (tmp_path / name).unlink()
        if damage != "missing":
            (tmp_path / name).write_bytes(data)
    assert sound_view(tmp_path, case, _budget()) is None


def test_a_fingerprint_names_every_file_that_was_seen(tmp_path: Path) -> None:
    case = _failing(tmp_path)
    assert fingerprint(tmp_path, case, "candidate") == {}  # its latents are missing
    (tmp_path / case.files["candidate_latents"]).write_bytes(b"latents")
    found = fingerprint(tmp_path, case, "candidate")
    lines = [
        f"{frame.batch} {frame.index} {hashlib.sha256((tmp_path / frame.candidate).read_bytes()).hexdigest()}\n"
        for frame in case.frames
    ]
    assert found["frames"] == hashlib.sha256("".join(lines).encode()).hexdigest()
    assert found["latents"] == hashlib.sha256(b"latents").hexdigest()
    assert sorted(found) == ["audio", "frames", "latents"]
    (tmp_path / case.frames[3].candidate).write_bytes(b"other")
    assert fingerprint(tmp_path, case, "candidate")["frames"] != found["frames"]
    (tmp_path / case.frames[3].candidate).unlink()
    assert fingerprint(tmp_path, case, "candidate") == {}


def test_only_what_a_store_can_take_is_offered(tmp_path: Path) -> None:
    case = _failing(tmp_path)
    assert acceptance(tmp_path, case) == ""
    (tmp_path / case.files["candidate_latents"]).write_bytes(b"latents")
    assert json.loads(acceptance(tmp_path, case))["case"] == FAIL_ID
    for refused in (
        {"gate": "parallel"},
        *({"verdict": verdict} for verdict in (Verdict.PASS, Verdict.INCOMPARABLE, Verdict.INFRA_ERROR)),
    ):
        assert acceptance(tmp_path, replace(case, **refused)) == ""


def test_a_small_share_pictures_the_worst_frames_and_ends_and_links_the_rest(tmp_path: Path) -> None:
    case = _failing(tmp_path)
    budget = Budget(90_000, [1])
    budget.next_case()
    found = frames_view(tmp_path, case, budget)
    assert found is not None
    without = [frame for frame in found.strips[0].frames if frame.sides[0].picture is None]
    assert [frame.name for frame in without] == ["frame 7"]
    assert [side.name for side in without[0].sides] == ["candidate", "reference"]
    assert all(side.href for side in without[0].sides)


def test_the_strip_keeps_to_its_words_and_shows_the_worst_frame_first(tmp_path: Path) -> None:
    case = _failing(tmp_path)
    found = frames_view(tmp_path, case, _budget(words=3 * 700))
    assert found is not None
    strip = found.strips[0]
    assert [frame.name for frame in strip.frames] == ["frame 0", "frame 5", "frame 8"]
    assert strip.left_out == 6
    assert math.isclose(found.rate, 8.0)
