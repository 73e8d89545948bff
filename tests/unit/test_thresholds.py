"""Files of limits: what is in them, what is refused, and where a limit may lie."""

from __future__ import annotations

import copy
import json
import math
from datetime import date
from pathlib import Path
from typing import Any

import pytest

import thresholds
from conformance.errors import InputError
from conformance.metrics import REGISTRY

CASE = "ltx-2/one-stage-t2v/cfg@single+diffusers-fp32"


def file() -> dict[str, Any]:
    return {
        "schema": thresholds.SCHEMA,
        "cohort": {"device": "cpu", "name": "test"},
        "entries": [entry(CASE)],
    }


def entry(case: str) -> dict[str, Any]:
    return {
        "case": case,
        "limits": {
            "latents.rel_l2": {
                "limit": 2e-6,
                "noise_floor": 1e-6,
                "smallest_defect": {"name": "erf-gelu", "value": 5e-4},
            },
            "ssim": {"limit": 0.99, "noise_floor": 1.0, "smallest_defect": {"name": "seam", "value": 0.95}},
            "psnr": {"limit": 60.0, "noise_floor": "inf", "smallest_defect": {"name": "seam", "value": 40.0}},
        },
        "evidence": {
            "method": "repeats under nuisance changes",
            "floor": [cohort("engine", "0123456789ab"), cohort("reference", "ba9876543210")],
            "cohort": {"device": "cpu", "dtype": case[-4:], "torch": "2.13.0", "diffusers": "0.42.1"},
            "power": {
                "caught": {"erf-gelu": ["latents.rel_l2"], "seam": ["psnr", "ssim"], "grey": ["structure"]},
                "missed": ["jpeg-75"],
            },
            "reason": "",
            "owner": "numerics",
            "date": "2026-01-31",
        },
    }


def cohort(side: str, fingerprint: str) -> dict[str, Any]:
    modes = [
        {"fingerprint": fingerprint, "samples": ["fresh_process", "two_threads", "repeat_1"]},
        {"fingerprint": "c0ffee00c0ff", "samples": ["attention_math", "together"]},
    ]
    return {"side": side, "device": "cpu", "repeats": 0.0, "changes": 1e-6, "modes": modes}


def save(path: Path, data: Any) -> Path:
    path.write_text(json.dumps(data))
    return path


def put(data: Any, where: str, value: Any) -> Any:
    """A copy of ``data`` with the dotted place ``where`` replaced; metrics with dots are spelt with ``:``."""
    data = copy.deepcopy(data)
    *parents, last = [int(key) if key.isdigit() else key.replace(":", ".") for key in where.split(".")]
    item = data
    for key in parents:
        item = item[key]
    item[last] = value
    return data


def test_entry_has_limits_and_evidence(tmp_path: Path) -> None:
    loaded = thresholds.load(save(tmp_path / "a.json", file()))
    found = loaded.for_case(CASE)
    assert found is not None
    assert found.limits == {"latents.rel_l2": 2e-6, "ssim": 0.99, "psnr": 60.0}
    assert json.loads(json.dumps(found.evidence, allow_nan=False)) == found.evidence
    assert found.evidence["limits"] == entry(CASE)["limits"]
    for name in ("method", "cohort", "reason", "owner", "date"):
        assert found.evidence[name] == entry(CASE)["evidence"][name]
    assert found.evidence["samples"] == 10
    assert found.evidence["floor"]["modes"] == 3
    assert [each["samples"] for each in found.evidence["floor"]["cohorts"]] == [5, 5]
    assert found.evidence["power"] == {
        "caught": ["erf-gelu", "seam", "grey"],
        "missed": ["jpeg-75"],
        "waived": [],
        "by": entry(CASE)["evidence"]["power"]["caught"],
    }
    assert loaded.for_case("ltx-2/one-stage-t2v/stg@single+diffusers-fp32") is None


def test_shipped_files_load() -> None:
    assert thresholds.load() == thresholds.load(Path(thresholds.__file__).parent)


def test_round_trip_and_digest(tmp_path: Path) -> None:
    first = thresholds.load(save(tmp_path / "a.json", file()))
    thresholds.write(tmp_path / "b.json", first.entries.values(), thresholds.Cohort(device="cpu", name="test"))
    second = thresholds.load(tmp_path / "b.json")
    assert second == first
    assert second.digest == first.digest
    changed = thresholds.load(save(tmp_path / "c.json", put(file(), "entries.0.evidence.owner", "kernels")))
    assert changed.digest != first.digest


def test_write_refuses_what_load_would(tmp_path: Path) -> None:
    found = thresholds.load(save(tmp_path / "a.json", file())).entries.values()
    with pytest.raises(InputError, match="'device' is 'cpu'"):
        thresholds.write(tmp_path / "b.json", found, thresholds.Cohort(device="NVIDIA H200", name="h200"))
    assert not (tmp_path / "b.json").exists()


def test_folder_merges_cohorts_and_device_selects(tmp_path: Path) -> None:
    other = put(put(file(), "cohort.device", "NVIDIA H200"), "entries.0.evidence.cohort.device", "NVIDIA H200")
    save(tmp_path / "cpu.json", file())
    save(tmp_path / "h200.json", put(other, "entries.0.limits.ssim.limit", 0.98))
    for device, limit in (("cpu", 0.99), ("NVIDIA H200", 0.98)):
        found = thresholds.load(tmp_path, device=device).for_case(CASE)
        assert found is not None
        assert found.limits["ssim"] == limit
    assert thresholds.load(tmp_path, device="AMD MI300X").entries == {}
    with pytest.raises(InputError, match=r"h200\.json: case '.*' already has limits in .*cpu\.json"):
        thresholds.load(tmp_path)


def test_every_file_is_checked_whatever_the_device(tmp_path: Path) -> None:
    save(tmp_path / "h200.json", {})
    with pytest.raises(InputError, match=r"h200\.json"):
        thresholds.load(tmp_path, device="cpu")


FIELDS = [
    "schema",
    "cohort",
    "cohort.device",
    "cohort.name",
    "entries",
    "entries.0.case",
    "entries.0.limits",
    "entries.0.limits.ssim.limit",
    "entries.0.limits.ssim.noise_floor",
    "entries.0.limits.ssim.smallest_defect",
    "entries.0.limits.ssim.smallest_defect.name",
    "entries.0.limits.ssim.smallest_defect.value",
    "entries.0.evidence",
    *(f"entries.0.evidence.{name}" for name in ("method", "floor", "cohort", "power", "reason", "owner", "date")),
    *(f"entries.0.evidence.floor.0.{name}" for name in ("side", "device", "repeats", "changes", "modes")),
    *(f"entries.0.evidence.floor.0.modes.0.{name}" for name in ("fingerprint", "samples")),
    *(f"entries.0.evidence.cohort.{name}" for name in ("device", "dtype", "torch", "diffusers")),
    *(f"entries.0.evidence.power.{name}" for name in ("caught", "missed")),
]


def refusal(tmp_path: Path, data: Any) -> str:
    path = save(tmp_path / "bad.json", data)
    with pytest.raises(InputError) as error:
        thresholds.load(path)
    message = str(error.value)
    assert message.startswith(str(path))
    assert "expected" in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("where", FIELDS)
def test_every_field_is_required(tmp_path: Path, where: str) -> None:
    data = put(file(), where, None)
    *parents, last = [int(key) if key.isdigit() else key for key in where.split(".")]
    item: Any = data
    for key in parents:
        item = item[key]
    del item[last]
    assert repr(last) in refusal(tmp_path, data)


@pytest.mark.parametrize("where", [place for place in FIELDS if not place.endswith("limits")])
def test_no_field_may_be_null(tmp_path: Path, where: str) -> None:
    assert "None" in refusal(tmp_path, put(file(), where, None))


@pytest.mark.parametrize(
    "where",
    [
        "",
        "cohort.",
        "entries.0.",
        "entries.0.limits.ssim.",
        "entries.0.evidence.",
        "entries.0.limits.ssim.smallest_defect.",
        "entries.0.evidence.power.",
        "entries.0.evidence.floor.0.",
        "entries.0.evidence.floor.0.modes.0.",
    ],
)
def test_unknown_fields_are_refused(tmp_path: Path, where: str) -> None:
    assert "unknown field 'extra'" in refusal(tmp_path, put(file(), f"{where}extra", 1))


@pytest.mark.parametrize("field", ["limit", "noise_floor", "smallest_defect.value"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, True, "0.5", "nan", [0.5], 10**400, None])
def test_numbers_are_finite_numbers(tmp_path: Path, field: str, value: Any) -> None:
    message = refusal(tmp_path, put(file(), f"entries.0.limits.ssim.{field}", value))
    assert CASE in message
    assert "metric 'ssim'" in message
    assert repr(field.split(".")[-1]) in message
    assert repr(value) in message


@pytest.mark.parametrize(
    ("metric", "field", "value", "inside"),
    [
        ("latents:rel_l2", "noise_floor", math.nextafter(2e-6, 0), True),
        ("latents:rel_l2", "noise_floor", 2e-6, False),
        ("latents:rel_l2", "noise_floor", -1e-9, False),
        ("latents:rel_l2", "noise_floor", math.nextafter(1e-6, 0), False),
        ("latents:rel_l2", "limit", 2.5e-4, True),
        ("latents:rel_l2", "limit", math.nextafter(2.5e-4, 1), False),
        ("latents:rel_l2", "limit", 0, False),
        ("ssim", "noise_floor", math.nextafter(0.99, 1), True),
        ("ssim", "noise_floor", 0.99, False),
        ("ssim", "limit", 0.975, True),
        ("ssim", "limit", math.nextafter(0.975, 0), False),
        ("ssim", "smallest_defect.value", 1.0, False),
        ("psnr", "limit", 40 + 20 * math.log10(2), True),
        ("psnr", "limit", 46.02, False),
        ("psnr", "limit", 60, True),
    ],
)
def test_limit_lies_between_floor_and_half_the_defect(
    tmp_path: Path, metric: str, field: str, value: float, inside: bool
) -> None:
    data = put(file(), f"entries.0.limits.{metric}.{field}", value)
    if inside:
        assert thresholds.load(save(tmp_path / "a.json", data)).entries
    else:
        assert f"metric {metric.replace(':', '.')!r}" in refusal(tmp_path, data)


@pytest.mark.parametrize("metric", sorted(REGISTRY))
def test_a_limit_on_the_wrong_side_is_refused_for_every_metric(tmp_path: Path, metric: str) -> None:
    floor, limit, defect = (0.9, 0.82, 0.1) if REGISTRY[metric].better == "higher" else (0.1, 0.18, 0.9)
    if metric == "psnr":
        floor, limit, defect = 90.0, 50.0, 30.0

    def bound(floor: float, defect: float) -> dict[str, Any]:
        return {metric: {"limit": limit, "noise_floor": floor, "smallest_defect": {"name": "seam", "value": defect}}}

    data = put(file(), "entries.0.evidence.power.caught", {"seam": [metric]})
    data = put(data, "entries.0.limits", bound(floor, defect))
    assert thresholds.load(save(tmp_path / "a.json", data)).entries
    assert "'limit' is" in refusal(tmp_path, put(data, "entries.0.limits", bound(defect, floor)))


@pytest.mark.parametrize(
    ("where", "value", "named"),
    [
        ("schema", "conformance.thresholds/1", "conformance.thresholds/2"),
        ("entries.0.case", "cfg", "<model>/<pipeline>"),
        ("entries.0.limits", {}, "a reason in the evidence"),
        ("entries.0.evidence.reason", "modes lie apart", "a reason in the evidence"),
        ("entries.0.limits.mae", entry(CASE)["limits"]["ssim"], "unknown metric"),
        ("entries.0.limits.ssim.smallest_defect.name", "blur", "power.caught"),
        ("entries.0.limits.ssim.smallest_defect.name", "erf-gelu", "says 'ssim' catches"),
        ("entries.0.evidence.floor", [], "a cohort of each side"),
        ("entries.0.evidence.floor", [cohort("engine", "0123456789ab")], "a cohort of each side"),
        ("entries.0.evidence.floor.1", cohort("engine", "0123456789ab"), "a cohort of each side"),
        ("entries.0.evidence.floor.0.side", "candidate", "one of"),
        ("entries.0.evidence.floor.0.modes.0.samples", ["fresh_process", "two_threads"], "at least 5 samples"),
        ("entries.0.evidence.floor.0.modes.1.samples", [], "one in every mode"),
        ("entries.0.evidence.floor.0.modes.1.samples", ["fresh_process", "b", "c"], "each once"),
        ("entries.0.evidence.floor.0.modes.1.fingerprint", "0123456789ab", "each once"),
        ("entries.0.evidence.floor.0.modes.1.fingerprint", "0123", "12 hexadecimal digits"),
        ("entries.0.evidence.floor.0.repeats", 2e-6, "the worst of all changes"),
        ("entries.0.evidence.floor.0.repeats", -1e-9, "the worst of all changes"),
        ("entries.0.evidence.floor.0.changes", 1.1e-6, "the worst change in evidence.floor"),
        ("entries.0.evidence.method", "  ", "one line of text"),
        ("entries.0.evidence.owner", "a\nb", "one line of text"),
        ("entries.0.evidence.date", "2026-02-30", "YYYY-MM-DD"),
        ("entries.0.evidence.date", "20260228", "YYYY-MM-DD"),
        ("entries.0.evidence.cohort.device", "cuda", "'cpu'"),
        ("entries.0.evidence.cohort.dtype", "bf16", "'fp32'"),
        ("entries.0.evidence.power.caught", ["seam"], "an object"),
        ("entries.0.evidence.power.caught.seam", [], "the metrics that catch it"),
        ("entries.0.evidence.power.caught.seam", ["ssim", "ssim"], "each name once"),
        ("entries.0.evidence.power.caught.seam", ["ssim", "psnr", "tile_ssim"], "one of"),
        ("entries.0.evidence.power.missed", ["seam"], "also in 'caught'"),
        ("entries", [entry(CASE), entry(CASE)], "more than one entry"),
    ],
)
def test_evidence_must_hold_together(tmp_path: Path, where: str, value: Any, named: str) -> None:
    assert named in refusal(tmp_path, put(file(), where, value))


@pytest.mark.parametrize("text", ["", "{", "\udcff", "[" * 100_000, "1" * 5000, '{"schema": "conf'])
def test_files_that_are_not_json(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.json").write_text(text, errors="surrogateescape")
    with pytest.raises(InputError, match=r"bad\.json"):
        thresholds.load(tmp_path / "bad.json")


def test_missing_source(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such thresholds"):
        thresholds.load(tmp_path / "none.json")


def test_a_case_without_limits_says_why(tmp_path: Path) -> None:
    data = put(put(file(), "entries.0.limits", {}), "entries.0.evidence.reason", "modes lie apart")
    data = put(data, "entries.0.evidence.power.caught", {"grey": ["structure"]})
    found = thresholds.load(save(tmp_path / "a.json", data)).for_case(CASE)
    assert found is not None
    assert found.limits == {}
    assert found.trouble(date(2026, 1, 31)) == "modes lie apart"


def test_innermost_values_are_written_on_one_line(tmp_path: Path) -> None:
    first = thresholds.load(save(tmp_path / "a.json", file()))
    thresholds.write(tmp_path / "b.json", first.entries.values(), thresholds.Cohort(device="cpu", name="test"))
    text = (tmp_path / "b.json").read_text()
    assert '"seam": ["psnr", "ssim"]' in text
    assert json.loads(text) == file()
