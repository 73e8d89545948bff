from __future__ import annotations

import contextlib
import copy
import json
import math
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_thresholds import CASE, file

import thresholds
from conformance.errors import InputError
from conformance.metrics import REGISTRY

JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.just("inf") | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=4,
)
NAMES = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=12)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value inside a JSON value, its own included."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in inner for place in places(item, (*path, key)))]


NAME_LISTS = st.lists(NAMES, unique=True, max_size=3)


@st.composite
def spreads(draw: st.DrawFn, side: str) -> thresholds.Spread:
    """At least five samples in up to three outcomes, none of which moved the latents."""
    names = draw(st.lists(NAMES, unique=True, min_size=5, max_size=9))
    marks = draw(st.lists(st.from_regex("[0-9a-f]{12}", fullmatch=True), unique=True, min_size=1, max_size=3))
    modes = tuple((mark, tuple(names[i :: len(marks)])) for i, mark in enumerate(marks))
    return thresholds.Spread(side=side, device="cpu", modes=modes, repeats=0.0, changes=0.0)


@st.composite
def bounds(draw: st.DrawFn, metric: str) -> thresholds.Bound:
    floor, limit, defect = draw(st.floats(0, 0.1)), draw(st.floats(0.2, 0.3)), draw(st.floats(0.7, 0.9))
    if metric == "psnr":
        floor, limit, defect = draw(st.floats(70, allow_nan=False)), 60 - limit, 50 - defect
    elif REGISTRY[metric].better == "higher":
        floor, limit, defect = 1 - floor, 1 - limit, 1 - defect
    return thresholds.Bound(metric=metric, limit=limit, noise_floor=floor, defect="defect", defect_value=defect)


@st.composite
def entries(draw: st.DrawFn) -> list[thresholds.Entry]:
    variants = draw(st.lists(st.from_regex(r"[a-z0-9][a-z0-9.-]{0,8}", fullmatch=True), unique=True, max_size=4))
    made = []
    for variant in variants:
        dtype = draw(st.sampled_from(["fp32", "bf16"]))
        metrics = draw(st.lists(st.sampled_from(sorted(REGISTRY)), min_size=1, unique=True))
        evidence = thresholds.Evidence(
            method=draw(NAMES),
            floor=(draw(spreads("engine")), draw(spreads("reference"))),
            cohort=(("device", "cpu"), ("dtype", dtype), ("torch", "2"), ("diffusers", "0"), (draw(NAMES) + "_", "x")),
            by=(("defect", tuple(metrics)), *((f"caught-{name}", ("structure",)) for name in draw(NAME_LISTS))),
            missed=tuple(f"missed-{name}" for name in draw(NAME_LISTS)),
            reason="",
            owner=draw(NAMES),
            date=draw(st.dates()).isoformat(),
        )
        found = tuple(draw(bounds(metric)) for metric in metrics)
        case = f"ltx-2/one-stage-t2v/{variant}@single+diffusers-{dtype}"
        made.append(thresholds.Entry(case=case, bounds=found, source=evidence))
    return made


@settings(max_examples=60)
@given(entries())
def test_what_is_written_is_read_back_equal(made: list[thresholds.Entry]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.json"
        thresholds.write(path, made, thresholds.Cohort(device="cpu", name="test"))
        assert thresholds.load(path).entries == {entry.case: entry for entry in made}


def keeps_the_rules(loaded: thresholds.Thresholds) -> None:
    """Written again from the definition: noise, the limit, half of a defect that the limit's metric catches."""
    for entry in loaded.entries.values():
        by = dict(entry.source.by)
        assert all(spread.samples >= 5 for spread in entry.source.floor)
        assert bool(entry.bounds) != bool(entry.source.reason)
        for bound in entry.bounds:
            assert bound.metric in by[bound.defect]
            if REGISTRY[bound.metric].better == "lower":
                assert bound.noise_floor < bound.limit <= bound.defect_value / 2
            elif bound.metric == "psnr":
                assert bound.noise_floor > bound.limit
                assert bound.limit >= bound.defect_value + 20 * math.log10(2)
            else:
                assert bound.noise_floor > bound.limit >= (1 + bound.defect_value) / 2


NUMBERS = [place for place in places(file()) if place and place[-1] in ("limit", "noise_floor", "value", "changes")]


@settings(max_examples=300)
@given(st.dictionaries(st.sampled_from(NUMBERS), st.floats(0, 1) | st.floats(), max_size=3))
def test_any_numbers_are_refused_or_keep_the_interval(changes: dict[tuple[Any, ...], float]) -> None:
    data = copy.deepcopy(file())
    for place, value in changes.items():
        item = data
        for key in place[:-1]:
            item = item[key]
        item[place[-1]] = value
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.json"
        path.write_text(json.dumps(data))
        try:
            loaded = thresholds.load(path)
        except InputError as error:
            message = str(error)
        else:
            keeps_the_rules(loaded)
            return
        assert message.startswith(str(path))
        assert "\n" not in message


@settings(max_examples=400)
@given(st.sampled_from(places(file())), JUNK)
def test_one_corrupt_value_is_refused_or_kept_exactly(place: tuple[Any, ...], junk: Any) -> None:
    """Whatever one value becomes: one line that names the file, or the file means exactly what it says."""
    data = copy.deepcopy(file())
    if place:
        item = data
        for key in place[:-1]:
            item = item[key]
        item[place[-1]] = junk
    else:
        data = junk
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.json"
        path.write_text(json.dumps(data))
        try:
            loaded = thresholds.load(path)
        except InputError as error:
            message = str(error)
        else:
            keeps_the_rules(loaded)
            thresholds.write(path, loaded.entries.values(), thresholds.Cohort(**data["cohort"]))
            assert json.loads(path.read_text()) == data
            return
        assert str(path) in message
        assert "\n" not in message


@settings(max_examples=200)
@given(st.data())
def test_a_file_cut_or_with_one_byte_changed_never_raises_anything_else(data: st.DataObject) -> None:
    text = json.dumps(file()).encode()
    at = data.draw(st.integers(0, len(text) - 1))
    broken = data.draw(
        st.sampled_from([text[:at], text[:at] + data.draw(st.binary(min_size=1, max_size=1)) + text[at + 1 :]])
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.json"
        path.write_bytes(broken)
        with contextlib.suppress(InputError):
            thresholds.load(path)


def test_the_valid_file_is_valid() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.json"
        path.write_text(json.dumps(file()))
        assert thresholds.load(path).for_case(CASE)
        path.write_text(json.dumps({**file(), "entries": []}))
        assert thresholds.load(path).for_case(CASE) is None
    with pytest.raises(InputError):
        thresholds.load(path)
