"""Waivers: which defect of which case, until and including which day, and what an expired one does."""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_thresholds import CASE, file, put, save

import thresholds
from conformance.errors import InputError
from thresholds import power, waivers

LAST = date(2026, 5, 31)


def waiver(**changes: Any) -> dict[str, Any]:
    plain = {
        "defect": "jpeg-75",
        "cases": "*-fp32",
        "reason": "no smaller than noise",
        "owner": "numerics",
        "expires": LAST.isoformat(),
    }
    return plain | changes


def load(folder: Path, *found: dict[str, Any], data: Any = None) -> thresholds.Thresholds:
    save(folder / "cpu.json", data or file())
    save(folder / "waivers.json", {"schema": waivers.SCHEMA, "waivers": list(found)})
    return thresholds.load(folder)


def entry(loaded: thresholds.Thresholds) -> thresholds.Entry:
    found = loaded.for_case(CASE)
    assert found is not None
    return found


def test_a_waived_defect_is_not_missed(tmp_path: Path) -> None:
    found = entry(load(tmp_path, waiver()))
    assert found.missed(LAST) == ()
    assert found.power(LAST) == 1.0
    assert power.of(found, LAST).as_dict() == {
        "id": CASE,
        "power": 1.0,
        "caught": ["erf-gelu", "seam", "grey"],
        "missed": [],
        "waived": ["jpeg-75"],
        "by": {"erf-gelu": ["latents.rel_l2"], "seam": ["psnr", "ssim"], "grey": ["structure"]},
        "trouble": "",
    }


@pytest.mark.parametrize("changes", [{"defect": "seam"}, {"cases": "*-bf16"}, {"cases": "ltx-2/one-stage-t2v"}])
def test_a_waiver_of_something_else_covers_nothing(tmp_path: Path, changes: dict[str, str]) -> None:
    loaded = load(tmp_path, waiver(**changes))
    assert entry(loaded).missed(LAST) == ("jpeg-75",)
    assert entry(loaded).power(LAST) == 0.75
    assert [each.defect for each in loaded.unused] == [changes.get("defect", "jpeg-75")]


@given(st.integers(-400, 400))
def test_the_last_day_is_inclusive(days: int) -> None:
    today = LAST + timedelta(days=days)
    made = waivers.Waiver(**waiver())
    assert made.holds(today) == (days <= 0)


def test_an_expired_waiver_counts_as_missed_and_stops_the_case(tmp_path: Path) -> None:
    found, after = entry(load(tmp_path, waiver())), LAST + timedelta(days=1)
    assert found.trouble(LAST) == ""
    assert found.missed(after) == ("jpeg-75",)
    assert found.power(after) == 0.75
    assert "'jpeg-75'" in found.trouble(after)
    assert "2026-05-31 (owner numerics)" in found.trouble(after)
    assert not power.of(found, after).enough


def test_a_waiver_that_holds_stands_in_for_an_expired_one(tmp_path: Path) -> None:
    found = entry(load(tmp_path, waiver(), waiver(cases=CASE, expires="2026-12-31")))
    assert found.trouble(LAST + timedelta(days=1)) == ""


def test_results_say_what_is_waived_today(tmp_path: Path) -> None:
    tomorrow, yesterday = (waivers.today() + timedelta(days=days) for days in (1, -1))
    holds = entry(load(tmp_path, waiver(expires=tomorrow.isoformat()))).evidence["power"]
    given = {name: value for name, value in waiver(expires=tomorrow.isoformat()).items() if name != "cases"}
    assert (holds["waived"], holds["missed"]) == ([given], [])
    over = entry(load(tmp_path, waiver(expires=yesterday.isoformat()))).evidence["power"]
    assert (over["waived"], over["missed"]) == ([], ["jpeg-75"])


def test_waivers_lie_beside_the_file_and_are_part_of_the_digest(tmp_path: Path) -> None:
    plain, waived = tmp_path / "plain", tmp_path / "waived"
    for folder in (plain, waived):
        folder.mkdir()
        save(folder / "cpu.json", file())
    save(waived / "waivers.json", {"schema": waivers.SCHEMA, "waivers": [waiver()]})
    assert thresholds.load(waived / "cpu.json") == thresholds.load(waived)
    assert thresholds.load(plain).waivers == ()
    assert thresholds.load(waived).digest != thresholds.load(plain).digest


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"reason": " "}, "'reason'"),
        ({"owner": None}, "'owner'"),
        ({"cases": "a\nb"}, "'cases'"),
        ({"expires": "2026-13-01"}, "YYYY-MM-DD"),
        ({"expires": "never"}, "YYYY-MM-DD"),
        ({"until": "2026-01-01"}, "unknown field 'until'"),
    ],
)
def test_a_waiver_without_reason_owner_or_last_day_is_refused(
    tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(InputError, match="expected") as error:
        load(tmp_path, waiver(**changes))
    assert str(error.value).startswith(str(tmp_path / "waivers.json"))
    assert named in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("missing", ["defect", "cases", "reason", "owner", "expires"])
def test_every_field_of_a_waiver_is_required(tmp_path: Path, missing: str) -> None:
    with pytest.raises(InputError, match=f"missing field '{missing}'"):
        load(tmp_path, {name: value for name, value in waiver().items() if name != missing})


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": "conformance.thresholds/2"}', '{"waivers": []}'])
def test_a_file_that_holds_no_waivers_is_refused(tmp_path: Path, text: str) -> None:
    save(tmp_path / "cpu.json", file())
    (tmp_path / "waivers.json").write_text(text)
    with pytest.raises(InputError, match=r"waivers\.json"):
        thresholds.load(tmp_path)


def test_the_same_waiver_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="waived twice"):
        load(tmp_path, waiver(), waiver(reason="again"))


def test_a_case_without_limits_cannot_be_helped_by_a_waiver(tmp_path: Path) -> None:
    data = put(put(file(), "entries.0.limits", {}), "entries.0.evidence.reason", "modes lie apart")
    data = put(data, "entries.0.evidence.power.caught", {})
    found = entry(load(tmp_path, waiver(), data=data))
    assert found.power(LAST) == 0.0
    assert found.trouble(LAST) == "modes lie apart"
    assert json.dumps(found.evidence)
