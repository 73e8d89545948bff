"""Merging shards: all of them or an error that names what is wrong; nothing is copied from outside their folders."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from report_fixture import FAIL_ID, make_results, make_shards

from conformance.errors import InputError
from conformance.jsonio import dumps, write_json
from conformance.results import Results, load
from reports.merge import merge
from reports.render import write_report


def _edit(path: Path, **run: Any) -> None:
    data = json.loads(path.read_text())
    data["run"] |= run
    path.write_text(json.dumps(data))


def test_shards_merge_into_the_whole_run_with_their_pictures(tmp_path: Path) -> None:
    paths = make_shards(tmp_path)
    merged = merge(paths[::-1], tmp_path / "out")
    whole = make_results(tmp_path / "whole")
    assert merged.counts == whole.counts
    assert sorted(dumps(case.as_dict()) for case in merged.cases) == sorted(
        dumps(case.as_dict()) for case in whole.cases
    )
    assert merged.run["started"] == "2026-08-01T10:00:00+00:00"
    assert merged.run["finished"] == "2026-08-01T10:32:00+00:00"
    assert merged.run["seconds"] == 31.5
    assert merged.run["shards"] == ["1/3", "2/3", "3/3"]
    assert len(merged.run["commands"]) == 3
    assert merged.run["ledger"] == whole.run["ledger"]
    frame = next(case for case in merged.cases if case.id == FAIL_ID).frames[0]
    for link in (frame.candidate, frame.reference, frame.heat, "cases/fail/log.txt", "cases/fail/candidate.wav"):
        assert (tmp_path / "out" / link).read_bytes() == (tmp_path / "shard2" / link).read_bytes()
    assert not list((tmp_path / "out").rglob(".copy*"))
    page = write_report(merged, tmp_path / "out").read_text(encoding="utf-8")
    assert "1/3, 2/3, 3/3" in page
    assert merge([tmp_path / "out"], tmp_path / "again").counts == whole.counts


@pytest.mark.parametrize(
    ("message", "choose", "run"),
    [
        ("of 3 shards, 2/3 missing", [0, 2], {}),
        ("of 3 shards, 2/3, 3/3 missing", [0], {}),
        ("shard 1/3 is also in", [0, 1, 2, 0], {}),
        ("shard 2/4 does not belong to the 3-shard run", [0, 1, 2], {"shard": "2/4"}),
        ("a whole run cannot be merged with shards", [0, 1, 2], {"shard": None}),
        ("'shard' is '4/3'", [0, 1, 2], {"shard": "4/3"}),
        ("'shard' is 2", [0, 1, 2], {"shard": 2}),
        ("'seconds' is 'long'", [0, 1, 2], {"seconds": "long"}),
        ("'started' is 5", [0, 1, 2], {"started": 5}),
    ],
)
def test_shards_that_do_not_belong_together(
    tmp_path: Path, message: str, choose: list[int], run: dict[str, Any]
) -> None:
    paths = make_shards(tmp_path)
    _edit(paths[1], **run)
    with pytest.raises(InputError) as error:
        merge([paths[index] for index in choose], tmp_path / "out")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_case_in_two_files_is_named(tmp_path: Path) -> None:
    paths = make_shards(tmp_path)
    for path in paths:
        _edit(path, shard=None)
    with pytest.raises(InputError, match="has more than one result for gate"):
        merge([*paths, paths[2]], tmp_path / "out")


@pytest.mark.parametrize("damage", ["truncated", "missing", "binary", "list"])
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, damage: str) -> None:
    path = make_shards(tmp_path)[1]
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes({"truncated": data[: len(data) // 2], "binary": b"\xff\xfe", "list": b"[]"}[damage])
    with pytest.raises(InputError, match=r"shard1/results\.json"):
        merge([path], tmp_path / "out")


def test_one_whole_run_is_rendered_again(tmp_path: Path) -> None:
    results = make_results(tmp_path / "run")
    write_report(results, tmp_path / "run")
    write_report(merge([tmp_path / "run" / "results.json"], tmp_path / "out"), tmp_path / "out")
    for name in ("index.html", "results.json", "junit.xml", "summary.md"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "run" / name).read_bytes(), name


def test_a_report_is_rendered_again_in_place(tmp_path: Path) -> None:
    results = make_results(tmp_path)
    index = write_report(results, tmp_path)
    before = index.read_bytes()
    write_report(merge([tmp_path / "results.json"], tmp_path), tmp_path)
    assert index.read_bytes() == before


def test_a_link_out_of_its_folder_is_refused(tmp_path: Path) -> None:
    path = make_shards(tmp_path, total=1)[0]
    (tmp_path / "secret").write_text("secret")
    log = path.parent / "cases" / "fail" / "log.txt"
    log.unlink()
    log.symlink_to(tmp_path / "secret")
    with pytest.raises(InputError, match="inside the results folder, links followed"):
        merge([path], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    path.write_text(path.read_text().replace("cases/fail/log.txt", "../secret"))
    with pytest.raises(InputError, match="inside the results folder"):
        merge([path], tmp_path / "out")


def test_nothing_is_written_through_a_link_in_the_target(tmp_path: Path) -> None:
    path = make_shards(tmp_path, total=1)[0]
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "cases").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="links followed"):
        merge([path], tmp_path / "out")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_two_files_of_one_name_must_be_the_same(tmp_path: Path) -> None:
    paths = make_shards(tmp_path, total=2)
    results = load(paths[1])
    one = replace(results.cases[0], files={"log": "cases/fail/log.txt"})
    write_json(paths[1], Results(run=results.run, cases=(one, *results.cases[1:])).as_dict())
    merge(paths, tmp_path / "out")
    (paths[1].parent / "cases" / "fail" / "log.txt").write_text("another log")
    with pytest.raises(InputError, match="is another file than the one of the same name"):
        merge(paths, tmp_path / "out2")


def test_two_gates_of_one_case_keep_their_own_files(tmp_path: Path) -> None:
    for gate in ("reference", "self"):
        results = make_results(tmp_path / gate)
        case = next(case for case in results.cases if case.id == FAIL_ID)
        (tmp_path / gate / case.files["log"]).write_text(gate)
        results = Results(run={}, cases=(replace(case, gate=gate),))
        write_json(tmp_path / gate / "results.json", results.as_dict())
    merged = merge([tmp_path / "reference", tmp_path / "self"], tmp_path / "out")
    assert [case.gate for case in merged.cases] == ["reference", "self"]
    for case in merged.cases:
        assert (tmp_path / "out" / case.files["log"]).read_text() == case.gate
        links = [link for frame in case.frames for link in (frame.candidate, frame.reference, frame.heat)]
        assert {link.startswith("self/") for link in links} == {case.gate == "self"}
        assert all((tmp_path / "out" / link).is_file() for link in links)


def test_environments_that_differ_are_kept_apart(tmp_path: Path) -> None:
    paths = make_shards(tmp_path, total=2)
    _edit(paths[1], ledger={"torch": "2.11.0"})
    ledger = merge(paths, tmp_path / "out").run["ledger"]
    assert ledger["1/2"]["torch"] == "2.13.0"
    assert ledger["2/2"] == {"torch": "2.11.0"}


def test_no_files_at_all() -> None:
    with pytest.raises(InputError, match="no results file given"):
        merge([], Path("out"))
