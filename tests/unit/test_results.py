"""results.json: round trip, exit codes, and one clear line for whatever is wrong in a file."""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance import results
from conformance.errors import InputError
from conformance.jsonio import dumps, number, write_json
from conformance.results import CaseResult, Divergence, FrameResult, LatentResult, MetricResult, Results, StepResult
from conformance.verdicts import Verdict, exit_code


def _case(case_id: str = "a/b/c@single+n-fp32", verdict: Verdict = Verdict.PASS) -> CaseResult:
    return CaseResult(
        id=case_id,
        gate="reference",
        verdict=verdict,
        reason="",
        metrics={"psnr": MetricResult(value=math.inf, worst=40.0, limit=30.0, ok=True)},
        latents={"video": LatentResult(rel_l2=0.0, max_abs=0.0, norm_ratio=1.0, cosine=1.0, hash_equal=True)},
        frames=(FrameResult(batch=0, index=3, metrics={"psnr": math.inf}, candidate="cases/x/0.png"),),
        steps=(StepResult(step=0, video=0.0, audio=None),),
        divergence=Divergence(
            tap="sigmas", rel_l2=None, max_abs=1.0, candidate={}, reference={}, compared=3, differing=1, missing=("a",)
        ),
        shared=("vae",),
        files={"log": "cases/x/log.txt"},
        seconds={"engine": 1.0},
    )


def _results(*cases: CaseResult) -> Results:
    return Results(run={"command": "conformance run"}, cases=cases)


def test_a_file_reads_back_equal(tmp_path: Path) -> None:
    written = _results(_case(), _case("other", Verdict.FAIL))
    write_json(tmp_path / "r.json", written.as_dict())
    assert results.load(tmp_path / "r.json") == written


def test_the_file_is_strict_json_though_psnr_is_infinite() -> None:
    text = dumps(_results(_case()).as_dict())
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def _corruptions() -> list[tuple[str, Any]]:
    def put(path: tuple[Any, ...], value: Any) -> Any:
        data: Any = json.loads(dumps(_results(_case()).as_dict()))
        target = data
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = value
        return data

    case = ("cases", 0)
    return [
        ("schema", put(("schema",), "other/1")),
        ("run", put(("run",), [])),
        ("verdict", put((*case, "verdict"), "GREEN")),
        ("gate", put((*case, "gate"), "vibes")),
        ("id", put((*case, "id"), "")),
        ("reason", put((*case, "reason"), None)),
        ("unknown field", put((*case, "extra"), 1)),
        ("psnr", put((*case, "metrics", "psnr", "worst"), "many")),
        ("metrics", put((*case, "metrics"), [1])),
        ("frames[0]", put((*case, "frames", 0), {"index": 1})),
        ("inside the results folder", put((*case, "frames", 0, "candidate"), "../../etc/passwd")),
        ("inside the results folder", put((*case, "files", "log"), "/etc/passwd")),
        ("relative path", put((*case, "files", "log"), "a\\b")),
        ("divergence", put((*case, "divergence"), "here")),
        ("axes", put((*case, "axes"), [])),
        ("cases[0]", put((*case,), "text")),
    ]


@pytest.mark.parametrize(("words", "data"), _corruptions(), ids=lambda value: value if isinstance(value, str) else "")
def test_a_malformed_file_is_one_line_that_names_it(tmp_path: Path, words: str, data: Any) -> None:
    write_json(tmp_path / "r.json", data)
    with pytest.raises(InputError) as error:
        results.load(tmp_path / "r.json")
    assert words in str(error.value)
    assert str(tmp_path / "r.json") in str(error.value)
    assert "\n" not in str(error.value)


def test_truncated_missing_and_binary_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    text = dumps(_results(_case()).as_dict())
    path.write_text(text[: len(text) // 2])
    with pytest.raises(InputError, match="not valid JSON"):
        results.load(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not UTF-8"):
        results.load(path)
    with pytest.raises(InputError, match="cannot be read"):
        results.load(tmp_path / "none.json")


def test_a_case_reported_twice_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "r.json", _results(_case(), _case()).as_dict())
    with pytest.raises(InputError, match="more than one result"):
        results.load(tmp_path / "r.json")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=200)
@given(data=st.data())
def test_whatever_stands_in_a_case_it_parses_or_is_an_input_error(data: st.DataObject) -> None:
    case = copy.deepcopy(json.loads(dumps(_case().as_dict())))
    target = data.draw(st.sampled_from([case, case["metrics"]["psnr"], case["frames"][0], case["divergence"]]))
    target[data.draw(st.sampled_from(sorted(target)))] = data.draw(_JSON)
    with contextlib.suppress(InputError):
        results.case_from_dict(case, "file")


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [
        (["PASS_EXACT", "PASS", "WAIVED"], 0),
        (["PASS", "FAIL"], 1),
        (["FAIL", "INFRA_ERROR", "INCOMPARABLE"], 3),
        (["FAIL", "NO_REFERENCE"], 1),
        (["PASS", "NO_REFERENCE"], 4),
        ([], 4),
    ],
)
def test_the_worst_verdict_decides_the_exit_code(verdicts: list[str], code: int) -> None:
    for order in itertools.permutations(verdicts):
        assert exit_code(Verdict(verdict) for verdict in order) == code


def test_only_three_verdicts_pass() -> None:
    assert {v for v in Verdict if exit_code([v]) == 0} == {Verdict.PASS_EXACT, Verdict.PASS, Verdict.WAIVED}


@given(st.floats())
def test_numbers_survive_json(value: float) -> None:
    again = number(json.loads(dumps(value)))
    assert again == value or (math.isnan(again) and math.isnan(value))
