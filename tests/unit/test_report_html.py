"""The page: well-formed, offline, complete, and inert whatever stands in the results."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import pytest
from html_check import Element, parse
from report_fixture import EXACT_ID, FAIL_ID, HOSTILE, hostile_case, make_results

from conformance.jsonio import dumps
from conformance.results import Results, load
from conformance.verdicts import Verdict
from reports.labels import VERDICTS
from reports.render import render_html, write_report


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("report")
    write_report(make_results(root), root)
    return root


@pytest.fixture(scope="module")
def source(folder: Path) -> str:
    return (folder / "index.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def document(source: str) -> Element:
    return parse(source)


def _card(document: Element, case_id: str) -> Element:
    return next(card for card in document.all("article") if card.all("h3")[0].text == case_id)


def _row(document: Element, case_id: str) -> Element:
    rows = [row for row in document.all("tr") if "data-case" in row.attributes]
    return next(row for row in rows if row.all("td", cls="id")[0].text == case_id)


def test_a_report_has_its_four_files_and_no_leftovers(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {
        "index.html",
        "results.json",
        "junit.xml",
        "summary.md",
        "cases",
    }


def test_html_is_a_pure_function_of_results_json(folder: Path, source: str, tmp_path: Path) -> None:
    saved = load(folder / "results.json")
    assert write_report(saved, folder).read_text(encoding="utf-8") == source
    assert dumps(load(folder / "results.json").as_dict()) == dumps(saved.as_dict())


def test_every_case_has_a_row_and_a_card_failures_first(document: Element) -> None:
    cards = [card.all("span", cls="verdict")[0].text for card in document.all("article")]
    rows = [row.all("a", cls="verdict")[0].text for row in document.all("tr") if "data-case" in row.attributes]
    assert cards == rows
    assert len(cards) == 11
    order = [label.short for label in VERDICTS.values()]
    assert cards == sorted(cards, key=order.index)
    assert set(cards) == {VERDICTS[verdict].short for verdict in Verdict}
    anchors = [row.attributes["data-case"] for row in document.all("tr") if "data-case" in row.attributes]
    assert anchors == [card.attributes["id"] for card in document.all("article")]


def test_only_cards_that_did_not_pass_are_open(document: Element) -> None:
    for card in document.all("article"):
        passed = card.all("span", cls="verdict")[0].text.startswith("Pass")
        assert ("open" in card.children[0].attributes) is not passed


def test_ids_are_unique_and_links_inside_the_page_have_a_target(document: Element) -> None:
    ids = [element.attributes["id"] for element in document.all() if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    inner = [link.attributes["href"][1:] for link in document.all("a") if link.attributes["href"].startswith("#")]
    cards = [card.attributes["id"] for card in document.all("article")]
    assert set(inner) == {*cards, "summary"}
    assert set(inner) <= set(ids)


def test_nothing_is_loaded_from_elsewhere_and_linked_files_exist(document: Element, folder: Path) -> None:
    assert not document.all("link")
    assert not [script for script in document.all("script") if script.attributes]
    pictures = [image.attributes["src"] for image in document.all("img")]
    assert len(pictures) == 3 + 2 * 9 + 3  # panes, strip, spectrograms
    assert all(src.startswith("data:image/webp;base64,") for src in pictures)
    links = [link.attributes["href"] for link in _card(document, FAIL_ID).all("a")]
    links += [audio.attributes["src"] for audio in document.all("audio")]
    assert len(links) == 3 + 3 * 9 + 3 + 2  # panes, strip, files, players
    for link in links:
        assert link.startswith("./")
        assert (folder / unquote(link)).is_file(), link
    assert not re.search(r"https?://|url\(|@import", (folder / "index.html").read_text(encoding="utf-8"))


def test_hostile_text_is_shown_and_never_becomes_markup(document: Element, source: str) -> None:
    assert len(document.all("script")) == 1
    assert not [name for element in document.all() for name in element.attributes if name.startswith("on")]
    assert "<script>alert" not in source
    assert "<img src=x" not in source
    assert not [char for char in source if char in "\u202e\x00\x1b"]
    assert "\\u202egnp.exe\\u0000\\u001b[31m" in source
    assert "${7*7} {{7*7}}" in source
    shown = " ".join(HOSTILE.replace("\u202e", "\\u202e").replace("\x00", "\\u0000").replace("\x1b", "\\u001b").split())
    card = _card(document, shown)
    assert card.all("p", cls="reason")[0].text == shown
    assert card.text.count("<script>alert('x')</script>") >= 15


def test_no_link_leaves_the_folder_or_has_a_scheme(document: Element) -> None:
    links = [link.attributes["href"] for link in document.all("a")]
    assert all(re.match(r"#case-|#summary|\./[A-Za-z0-9%/._-]*$", link) for link in links), links
    assert "./javascript%3Aalert%281%29/%22%3E%3Cscript%3E.png" in links


def test_the_policy_admits_the_inline_script_and_style_and_nothing_else(document: Element, source: str) -> None:
    policy = document.all("meta")[1].attributes["content"]
    for tag in ("script", "style"):
        text = re.search(rf"<{tag}>(.*?)</{tag}>", source, re.S)
        assert text
        assert f"'sha256-{base64.b64encode(hashlib.sha256(text[1].encode()).digest()).decode()}'" in policy
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert not [element for element in document.all() if "style" in element.attributes]


def test_a_page_keeps_to_its_size_by_leaving_pictures_out(folder: Path, source: str) -> None:
    results = load(folder / "results.json")
    words = len(re.sub(r"data:image/webp;base64,[A-Za-z0-9+/=]*", "", source))
    most = words + (len(source) - words) // 2
    small = render_html(results, folder, most)
    assert len(small.encode()) <= most
    assert "left out to keep this page small" in small
    assert len(parse(small).all("img")) < len(parse(source).all("img"))


def test_the_page_reads_without_script(document: Element) -> None:
    assert "hidden" in document.all("form")[0].attributes
    assert all("disabled" in chip.attributes for chip in document.all("button", cls="chip"))
    assert not [element for element in document.all("article") if "hidden" in element.attributes]


def test_the_failing_card_says_what_differs_and_where(document: Element) -> None:
    card = _card(document, FAIL_ID)
    text = card.text
    for part in (
        "Shared with the reference, not under test: text encoder, video VAE, vocoder",
        "step.000/cond/block.01/ff/out",
        "step 0, conditional branch, block 1, ff/out: relative L2 3.10e-05, largest difference 0.0039. "
        "43 of 120 taps are bit-equal, 77 differ.",
        "not measured: no CLIP weights: give --clip PATH",
        "Worst by SSIM: frame 5, of 9 judged.",
        "Worst tile of 32 × 32 pixels:",
        "larger than the ledger records: Relative L2 0.0117, recorded 0.002",
        "Regression 5.9 times as far from float64 as the reference",
        "2 of 3 defects caught, 1 waived",
        "waived: noise_2 below bf16 rounding, owner numerics, until 2027-01-31",
        "0.10 s, 1 channel, 24000 Hz",
        "Candidate latents file missing",
        "numerics team",
        f"conformance run {FAIL_ID}",
    ):
        assert part in text, part
    metrics = {row.children[0].text: row.text for row in card.all("table", cls="metrics")[0].all("tr")}
    assert metrics["SSIM"] == "SSIM 0.9787 0.912 ≥ 0.95 −0.038 outside 0.9991 0.88 erf-gelu"
    assert metrics["PSNR"] == "PSNR 34.25 31.4 ≥ 30 +1.4 dB within ∞ 24 erf-gelu"
    assert metrics["Relative L2"] == "Relative L2 0.0072 0.0117 ≤ 0.002 −0.0097 outside 0 0.011 erf-gelu"
    assert [item.text for item in card.all("li", cls="worst")] == [
        "frame 5 worst SSIM 0.912 Mean abs diff 4.1 difference"
    ]
    assert [row.children[0].text for row in card.all("tr", cls="differs")] == [
        *("sha256 differs", "rms differs"),
        "threads differs",
    ]
    steps = next(svg for svg in card.all("svg", cls="plot") if "Relative L2" in svg.attributes["aria-label"])
    for words in ("limit 0.002", "smallest defect (erf-gelu) 0.011"):
        assert words in steps.text


def test_an_exact_pass_says_so_in_the_summary(document: Element) -> None:
    row = _row(document, EXACT_ID)
    assert row.text == f"Pass, exact {EXACT_ID} 1 ≥ 0.95 ∞ ≥ 30 – – bit-equal 3.91 s"


def test_the_latents_column_shows_its_limit_and_is_red_outside_it(document: Element) -> None:
    row = _row(document, FAIL_ID)
    cell = row.all("td", cls="n")[-2]
    assert (cell.text, "value-bad" in cell.attributes["class"]) == ("0.0117 ≤ 0.002", True)
    heads = [head.text for head in document.all("table", cls="summary")[0].all("th")]
    assert heads.count("Latents rel. L2") == 1
    assert "Relative L2" not in heads


def _with_frames(folder: Path, verdict: Verdict) -> Element:
    """The card of a case of nine frames; those of index 3 are equal on both sides."""
    case = make_results(folder).cases[2]
    equal = {"max_abs_diff": 0.0}
    frames = tuple(
        replace(frame, metrics=equal, heat="") if frame.index == 3 or verdict is Verdict.PASS_EXACT else frame
        for frame in case.frames
    )
    shown = frames if verdict is Verdict.PASS_EXACT else frames[3:4]
    index = write_report(Results(run={}, cases=(replace(case, verdict=verdict, frames=shown),)), folder)
    return parse(index.read_text(encoding="utf-8")).all("article")[0]


def test_frames_that_are_equal_are_said_to_be_instead_of_a_black_picture(tmp_path: Path) -> None:
    card = _with_frames(tmp_path, Verdict.FAIL)
    panes = [
        (pane.all("figcaption")[0].children[0].text, len(pane.all("img")))
        for pane in card.all("figure")
        if pane.all("a")
    ]
    assert panes == [("Candidate", 1), ("Reference", 1)]
    assert "Difference equal: every pixel is the reference's" in card.text


def test_an_exact_pass_carries_few_small_pictures_and_links_every_frame(tmp_path: Path) -> None:
    card = _with_frames(tmp_path, Verdict.PASS_EXACT)
    assert "First: frame 0, of 9 judged, all equal." in card.text
    assert len(card.all("img")) == 1 + 3 + 1  # the frame, three of the strip, a spectrogram
    strip = card.all("ol", cls="strip")[0]
    assert [len(item.all("img")) for item in strip.all("li")] == [1, 0, 0, 0, 1, 0, 0, 0, 1]
    assert [len(item.all("a")) for item in strip.all("li")] == [1] * 9
    assert all("worst" not in item.text for item in strip.all("li"))


def test_a_run_without_cases_is_a_report_too(tmp_path: Path) -> None:
    index = write_report(Results(run={}, cases=()), tmp_path)
    assert "No case was asked for." in parse(index.read_text(encoding="utf-8")).text


def test_a_picture_outside_the_folder_is_not_read(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "out").mkdir()
    secret = folder / "cases" / "fail" / "heat" / "0-0000.png"
    (tmp_path / "out" / "heat.png").symlink_to(secret)
    case = make_results(folder).cases[2]
    frame = case.frames[0].__class__(batch=0, index=0, metrics={}, candidate="../out.png", heat="heat.png")
    stolen = hostile_case().__class__(id="x", gate="self", verdict=Verdict.FAIL, reason="", frames=(frame,))
    index = write_report(Results(run={}, cases=(stolen,)), tmp_path / "out")
    page = parse(index.read_text(encoding="utf-8"))
    assert not page.all("img")
    assert page.text.count("file missing") == 2


def test_a_frame_that_was_given_is_shown_but_not_counted_as_judged(tmp_path: Path) -> None:
    results = make_results(tmp_path)
    case = next(case for case in results.cases if case.id == FAIL_ID)
    frames = (replace(case.frames[0], metrics={}), *case.frames[1:])
    given = replace(results, cases=(replace(case, frames=frames),))
    text = parse(write_report(given, tmp_path).read_text(encoding="utf-8")).text
    assert f"of {len(frames) - 1} judged" in text
    assert "frame 0 not judged" in text


def test_a_hostile_command_of_the_run_stays_inside_its_attribute(tmp_path: Path) -> None:
    index = write_report(Results(run={"command": HOSTILE, "started": HOSTILE}, cases=()), tmp_path)
    page = parse(index.read_text(encoding="utf-8"))
    assert len(page.all("script")) == 1
    assert json.loads(page.all("div", id="patch")[0].attributes["data-source"])["command"] == HOSTILE
