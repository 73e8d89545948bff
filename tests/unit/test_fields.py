"""Every field of Numerics has an operation that shows it, and docs/fields.md is the table that measuring gives."""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance.defects.fields import FIELDS
from conformance.defects.fields.measure import CASES, DTYPES, Change, operation, others
from conformance.defects.fields.table import Row, measured, parsed, rendered
from engine.numerics import choices

PAGE = Path(__file__).parents[2] / "docs" / "fields.md"
# another number of rows: other bits of a float32 product on some CPUs
BY_ROWS = ("timestep_shape", "cfg_batch")
# what a CPU does not run
ELSEWHERE = {("attention", value) for value in ("efficient", "cudnn", "fa3")}


def test_every_field_has_an_entry() -> None:
    assert FIELDS.keys() == choices().keys()
    for name, field in FIELDS.items():
        assert field.except_.keys() <= set(others(name))
        assert field.taps
        assert field.case in CASES


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in FIELDS for value in others(name)])
def test_an_operation_shows_its_field_exactly_where_it_should(name: str, value: str) -> None:
    seen = {dtype: operation(name, value, dtype).seen for dtype in DTYPES}
    if (name, value) in ELSEWHERE:
        assert set(seen.values()) == {None}
        return
    if name in BY_ROWS:
        seen.pop("fp32")
    assert seen == {dtype: dtype in FIELDS[name].shows(value) for dtype in seen}


@pytest.mark.parametrize("dtype", DTYPES)
def test_operations_repeat(dtype: str) -> None:
    """Nothing is seen when nothing is flipped."""
    for name in (name for name, field in FIELDS.items() if field.operation is not None):
        before = next(value for value in choices()[name] if value not in others(name))
        assert operation(name, before, dtype).size == 0.0, name


def test_the_page_has_every_field_and_value() -> None:
    page = PAGE.read_text()
    assert list(parsed(page)) == [(name, value) for name in FIELDS for value in others(name)]


def test_the_page_agrees_with_the_registry() -> None:
    """On what operations show, without measuring."""
    for (name, value), marks in parsed(PAGE.read_text()).items():
        shown = tuple(dtype for dtype in DTYPES if marks[f"operation {dtype}"])
        assert shown == ((name, value) not in ELSEWHERE) * FIELDS[name].shows(value)
        ran = (name, value) not in ELSEWHERE
        assert {marks[f"run {dtype}"] is not None for dtype in DTYPES} == {ran}, name


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_page_is_what_measuring_gives() -> None:
    assert parsed(rendered(measured())) == parsed(PAGE.read_text())


def test_cells() -> None:
    columns = [f"{tier} {dtype}" for tier in ("operation", "component", "run") for dtype in ("fp32", "bf16")]
    sizes = (Change(0.0), Change(2.6e-3), Change(None), Change(0.0), Change(0.49, "bytes "), Change(float("inf")))
    row = Row("attention", "math", dict(zip(columns, sizes, strict=True)))
    page = rendered(iter([row]))
    assert "| `attention` | math | = | 2.6e-03 | - | = | bytes 4.9e-01 | inf |" in page
    assert list(parsed(page)["attention", "math"].values()) == [False, True, None, False, True, True]
