"""The page in a real browser: what can be done on it, that it stays offline, and what is left without script."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Log, launched
from report_fixture import FAIL_ID, make_results

from conformance.results import load
from reports.accept import fingerprint
from reports.render import write_report

Open = Callable[..., Any]
_VISIBLE = (
    "panes => panes.filter(pane => pane.checkVisibility({visibilityProperty: true})).map(pane => pane.dataset.side)"
)
FAIL = '[data-case^="case-ltx-2.3-one-stage-t2v-cfg-single"]'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("page")
    results = make_results(root)
    (root / "cases/fail/candidate.safetensors").write_bytes(b"latents")
    write_report(results, root)
    return root


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with launched() as browser:
        yield browser


@pytest.fixture
def open_page(chromium: Any, folder: Path) -> Iterator[Open]:
    """Opens the page and checks at the end that nothing went wrong on it and that nothing left its folder."""
    contexts, logs = [], []

    def opened(fragment: str = "", *, root: Path = folder, **options: Any) -> Any:
        context = chromium.new_context(viewport={"width": 1280, "height": 900}, **options)
        context.set_default_timeout(4000)
        contexts.append(context)
        page = context.new_page()
        logs.append(Log(root))
        logs[-1].watch(page)
        page.goto((root / "index.html").resolve().as_uri() + fragment)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert [problem for log in logs for problem in log.problems] == []


def _card(page: Any) -> Any:
    return page.locator("article.card", has=page.get_by_role("heading", name=FAIL_ID, exact=True))


def _viewer(page: Any) -> Any:
    viewer = _card(page).locator(".viewer")
    viewer.scroll_into_view_if_needed()
    viewer.locator(".tools").wait_for()
    return viewer


def _shown(page: Any) -> list[str]:
    return [row.inner_text() for row in page.locator("tr[data-case]:not([hidden]) td.id").all()]


def _image(viewer: Any, side: str) -> Any:
    return viewer.locator(f'.pane[data-side="{side}"] img')


def _until(page: Any, holds: Callable[[], bool]) -> None:
    """Wait up to two seconds. The page's policy forbids the driver's own way of waiting for an expression."""
    for _ in range(50):
        if holds():
            return
        page.wait_for_timeout(40)
    raise AssertionError("it did not come about in two seconds")


def _scale(viewer: Any, side: str) -> str:
    return _image(viewer, side).evaluate("image => image.closest('.view').firstElementChild.style.transform")


def test_the_page_opens_with_failures_first_and_nothing_goes_wrong(open_page: Open) -> None:
    page = open_page()
    assert page.locator("tr[data-case] a.verdict").first.inner_text() == "Fail"
    assert page.title().startswith("Conformance report")
    page.get_by_role("button", name="Open all").click()
    for viewer in page.locator(".viewer").all():
        viewer.scroll_into_view_if_needed()


def test_filters_live_in_the_url_and_hide_rows_and_cards(open_page: Open) -> None:
    page = open_page()
    page.locator('.chip[data-verdict="FAIL"]').click()
    page.locator('select[data-axis="dtype"]').select_option("bf16")
    page.get_by_role("searchbox").fill("raccoon")
    assert _shown(page) == []
    page.get_by_role("searchbox").fill("RED fox")
    assert _shown(page) == [FAIL_ID]
    assert page.locator("article.card:not([hidden])").count() == 1
    assert page.url.endswith("#verdict=FAIL&axis.dtype=bf16&q=RED+fox")
    page.reload()
    assert _shown(page) == [FAIL_ID]
    page.get_by_role("button", name="Clear").click()
    _until(page, lambda: page.locator(".shown").inner_text() == "11 of 11 shown")
    assert page.url.endswith("#")


def test_sorting_puts_the_worst_first_then_last_and_is_kept(open_page: Open) -> None:
    page = open_page()
    before = _shown(page)
    head = page.locator("th[data-key=ssim] button")
    head.click()
    assert page.url.endswith("#sort=ssim")
    assert _shown(page)[0] == FAIL_ID
    page.reload()
    values = [cell.inner_text() for cell in page.locator("td[data-key=ssim]").all()]
    assert [value.split()[0] for value in values[:3]] == ["0.912", "0.99998", "1"]
    assert set(values[3:]) == {"–"}
    assert page.locator("article.card h3").first.inner_text() == FAIL_ID
    page.locator("th[data-key=ssim] button").click()
    assert page.locator("td[data-key=ssim]").first.inner_text().split()[0] == "1"
    page.locator("th[data-key=ssim] button").click()
    assert _shown(page) == before
    page.locator("th[data-key=latents] button").click()
    assert [cell.inner_text().split()[0] for cell in page.locator("td[data-key=latents]").all()[:3]] == [
        "NaN",
        "0.0117",
        "8.10e-07",
    ]


def test_the_slider_follows_the_pointer_and_the_keys(open_page: Open) -> None:
    page = open_page()
    viewer = _viewer(page)
    viewer.locator("[data-mode=slide]").click()
    view = viewer.locator('.pane[data-side="candidate"] .view')
    box = view.bounding_box()
    assert "50%" in view.evaluate("view => getComputedStyle(view).clipPath")
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + 60, steps=3)
    page.mouse.up()
    handle = viewer.get_by_role("slider")
    assert handle.get_attribute("aria-valuenow") == "25"
    assert re.search(r"inset\(0px 75\.?\d*%", view.evaluate("view => getComputedStyle(view).clipPath"))
    handle.press("ArrowRight")
    assert handle.get_attribute("aria-valuenow") == "27"
    assert page.url.endswith("index.html")


def test_blink_shows_one_side_at_a_time_in_turn(open_page: Open) -> None:
    page = open_page()
    viewer = _viewer(page)
    viewer.locator("[data-mode=blink]").click()
    seen = set()
    for _ in range(30):
        seen.add(tuple(viewer.locator(".pane").evaluate_all(_VISIBLE)))
        if len(seen) == 2:
            break
        page.wait_for_timeout(60)
    assert seen == {("candidate",), ("reference",)}


def test_blink_stands_still_where_motion_is_not_wanted_and_turns_on_a_press(open_page: Open) -> None:
    page = open_page(reduced_motion="reduce")
    viewer = _viewer(page)
    viewer.locator("[data-mode=blink]").click()
    before = viewer.get_attribute("class")
    page.wait_for_timeout(800)
    assert viewer.get_attribute("class") == before
    viewer.locator("[data-mode=blink]").click()
    assert viewer.get_attribute("class") != before


def test_zoom_and_pan_move_every_pane_in_step_and_show_full_frames(open_page: Open) -> None:
    page = open_page()
    viewer = _viewer(page)
    box = viewer.locator('.pane[data-side="reference"] .view').bounding_box()
    page.mouse.dblclick(box["x"] + box["width"] / 4, box["y"] + box["height"] / 4)
    for side in ("candidate", "reference", "heat"):
        _until(page, lambda side=side: _image(viewer, side).get_attribute("src").startswith("file:"))
    first = _scale(viewer, "candidate")
    assert "scale(4)" in first
    page.mouse.move(box["x"] + 90, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 60, box["y"] + 40, steps=4)
    page.mouse.up()
    moved = {_scale(viewer, side) for side in ("candidate", "reference", "heat")}
    assert len(moved) == 1
    assert first not in moved
    viewer.locator('[data-zoom="0"]').click()
    assert "scale(1)" in _scale(viewer, "heat")


def test_frames_are_stepped_picked_and_played(open_page: Open) -> None:
    page = open_page()
    viewer = _viewer(page)
    name = viewer.locator(".frame output")
    assert name.inner_text() == "5 (6/9)"
    viewer.locator('[data-step="1"]').click()
    assert name.inner_text() == "6 (7/9)"
    _until(page, lambda: _image(viewer, "candidate").get_attribute("src").endswith("candidate/0-0006.png"))
    chart = viewer.locator(".timeline")
    box = chart.bounding_box()
    page.mouse.click(box["x"] + box["width"] * 168 / 640, box["y"] + 20)
    assert name.inner_text() == "0 (1/9)"
    viewer.locator(".strip > li").nth(3).locator("img").first.click()
    assert name.inner_text() == "3 (4/9)"
    viewer.locator("[data-worst]").click()
    assert name.inner_text() == "5 (6/9)"
    viewer.locator("[data-play]").click()
    _until(page, lambda: not name.inner_text().startswith("5 "))
    viewer.locator("[data-play]").click()
    stopped = name.inner_text()
    page.wait_for_timeout(300)
    assert name.inner_text() == stopped


def test_the_difference_has_its_tiles_and_they_can_go(open_page: Open) -> None:
    page = open_page()
    viewer = _viewer(page)
    viewer.locator("[data-mode=diff]").click()
    assert viewer.locator(".pane:visible").count() == 1
    worst = viewer.locator(".tiles rect")
    assert worst.is_visible()
    viewer.locator('[data-step="1"]').click()
    assert not worst.is_visible()  # it is the worst frame's
    viewer.locator(".grid input").uncheck()
    assert not viewer.locator(".tiles").is_visible()


def test_a_page_alone_still_shows_its_thumbnails(open_page: Open, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_bytes((folder / "index.html").read_bytes())
    page = open_page(root=tmp_path)
    viewer = _viewer(page)
    viewer.locator('[data-step="1"]').click()
    viewer.get_by_text("The full frames are not beside this page.").wait_for()
    image = _image(viewer, "candidate")
    assert image.get_attribute("src").startswith("data:image/webp")
    assert image.evaluate("image => image.naturalWidth") == 128


def test_accepting_makes_a_patch_file_of_what_was_seen(open_page: Open, folder: Path) -> None:
    page = open_page(accept_downloads=True)
    page.on("dialog", lambda dialog: dialog.dismiss())
    _card(page).get_by_role("button", name="Accept this output").click()
    form = page.locator("#accept")
    form.get_by_label("Reason").fill("   ")
    form.get_by_label("Owner").fill("numerics")
    form.get_by_label("Expires").fill("2099-01-31")
    form.get_by_role("button", name="Add to patch").click()
    assert form.is_visible()  # spaces are no reason
    form.get_by_label("Reason").fill(' fused rotary, "see" </script> \n two lines')
    form.get_by_role("button", name="Add to patch").click()
    assert page.locator("#patch").inner_text().startswith("Patch with 1 entry")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download patch").click()
    assert download.value.suggested_filename == "accept.json"
    patch = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
    results = load(folder / "results.json")
    case = next(case for case in results.cases if case.id == FAIL_ID)
    assert patch["schema"] == "conformance.accept/1"
    assert patch["results"] == {name: results.run[name] for name in ("started", "command")}
    assert patch["entries"] == [
        {
            "case": FAIL_ID,
            "gate": "reference",
            "verdict": "FAIL",
            "job": "5e" * 32,
            "old": fingerprint(folder, case, "reference"),
            "new": fingerprint(folder, case, "candidate"),
            "reason": 'fused rotary, "see" </script> \n two lines',
            "owner": "numerics",
            "expires": "2099-01-31",
        }
    ]
    page.get_by_role("button", name="Clear", exact=True).last.click()
    assert not page.locator("#patch").is_visible()


def test_an_expiry_in_the_past_is_refused(open_page: Open) -> None:
    page = open_page()
    _card(page).get_by_role("button", name="Accept this output").click()
    form = page.locator("#accept")
    for label, text in (("Reason", "a"), ("Owner", "b"), ("Expires", "2020-01-01")):
        form.get_by_label(label).fill(text)
    form.get_by_role("button", name="Add to patch").click()
    assert form.is_visible()
    form.get_by_role("button", name="Cancel").click()
    assert not page.locator("#patch").is_visible()


def test_the_keyboard_reaches_everything(open_page: Open) -> None:
    page = open_page()
    page.keyboard.press("?")
    assert page.locator("#keys").is_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    page.keyboard.type("fox")
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    card = _card(page)
    assert card.locator("summary").first.evaluate("summary => summary === document.activeElement")
    page.keyboard.press("o")
    assert card.locator("details").first.get_attribute("open") is None
    page.keyboard.press("o")
    viewer = _viewer(page)
    for key, mode in (("2", "slide"), ("3", "blink"), ("4", "diff"), ("1", "side")):
        page.keyboard.press(key)
        assert viewer.get_attribute("data-mode") == mode
    page.keyboard.press("ArrowLeft")
    assert viewer.locator(".frame output").inner_text() == "4 (5/9)"
    page.keyboard.press("+")
    assert "scale(2)" in _scale(viewer, "heat")
    page.keyboard.press("g")
    assert not viewer.locator(".grid input").is_checked()
    page.keyboard.press("a")
    assert page.locator("#accept").is_visible()


def test_copying_the_command_says_so(open_page: Open) -> None:
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    button = _card(page).locator("button.copy")
    button.click()
    _until(page, lambda: button.inner_text() != "Copy")
    if button.inner_text() == "Copied":
        assert page.evaluate("navigator.clipboard.readText()") == f"conformance run {FAIL_ID}"


def test_hostile_text_is_text(open_page: Open) -> None:
    page = open_page()
    page.get_by_role("button", name="Open all").click()
    page.get_by_role("searchbox").fill("<script>alert")
    assert page.locator("tr[data-case]:not([hidden])").count() == 1
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    page.keyboard.press("2")
    page.wait_for_timeout(200)
    assert page.locator("script").count() == 1
    assert page.evaluate(
        "[...document.querySelectorAll('*')].every(e => ![...e.attributes].some(a => a.name.startsWith('on')))"
    )


def test_without_script_everything_is_there_to_read(open_page: Open) -> None:
    page = open_page(java_script_enabled=False)
    card = _card(page)
    assert card.locator(".pane img").count() == 3
    assert card.locator(".timeline").is_visible()
    assert card.locator(".sound svg").is_visible()
    assert card.get_by_text("ssim worst 0.912 is below its limit").is_visible()
    for absent in ("#filters", ".tools", "[data-accept]", ".copy", "dialog", "#patch"):
        assert page.locator(absent).locator("visible=true").count() == 0
    assert page.locator(f"tr{FAIL}").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_window_needs_no_sideways_scrolling(open_page: Open, scheme: str) -> None:
    page = open_page(color_scheme=scheme)
    page.set_viewport_size({"width": 400, "height": 800})
    _viewer(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(int(part) for part in re.findall(r"\d+", background)) < 200) == (scheme == "dark")
