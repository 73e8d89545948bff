"""Departures from a case: no field is dropped between the command line, JSON, the case and the engine."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from engine_reference import tiny_case, tiny_request

from conformance import cli, overrides
from conformance.case import KERNELS, QUANTIZATIONS, Case, Override
from conformance.errors import InputError, UnsupportedCase
from conformance.generator import Probe
from conformance.job import stored_as
from conformance.matrix import all_cases, select
from conformance.overrides import Changes, depart, origin
from engine import numerics
from engine.generator import Engine, build
from engine.numerics import PRESETS, choices, preset, resolve
from reference_impl.tiny.build import cached

CASES = {case.id: case for case in all_cases()}
PLAIN = CASES["ltx-2.3/one-stage-t2v/unguided@single+diffusers-bf16"]
EVERY_VALUE = [(field, value) for field, values in choices().items() for value in values]


def by_line(case: Case, *words: str) -> Case:
    """The case as ``conformance run`` with these words runs it."""
    options = cli.parser().parse_args(["run", *words])
    (made,) = depart(
        [case],
        settings=options.set,
        config=options.config,
        quantization=options.quantization,
        kernels=options.kernels,
        image=options.image,
    )
    return made


def by_file(case: Case, folder: Path, data: Any) -> Case:
    path = folder / "config.json"
    path.write_text(json.dumps(data))
    return by_line(case, "--config", str(path))


def through_json(case: Case) -> Case:
    """As a job, a result and a stored reference carry it."""
    return Case.from_dict(json.loads(json.dumps(case.as_dict())))


def check_round_trip(field: str, value: str, folder: Path) -> None:
    for name in PRESETS:
        base = replace(PLAIN, numerics=name)
        expected = asdict(preset(name)) | {field: value}
        for made in (
            by_line(base, "--set", f"{field}={value}"),
            by_file(base, folder, {"numerics": {field: value}}),
            by_file(base, folder, Changes.parse([f"{field}={value}"], "--set").as_dict()),
        ):
            assert asdict(resolve(through_json(made))) == expected
            assert through_json(made) == made
            assert (made.digest == base.digest) == (expected == asdict(preset(name)))
            picked, words = origin(made)
            if name == PLAIN.numerics:
                assert by_line(CASES[picked], *words) == made


@pytest.mark.parametrize(("field", "value"), EVERY_VALUE)
def test_every_value_of_every_field_survives(field: str, value: str, tmp_path: Path) -> None:
    check_round_trip(field, value, tmp_path)


def _from_dict_loses_one(patch: pytest.MonkeyPatch) -> None:
    real = Case.from_dict.__func__  # type: ignore[attr-defined]

    def lose(cls: Any, data: Any) -> Any:
        return real(cls, {**data, "overrides": data["overrides"][:-1]})

    patch.setattr(Case, "from_dict", classmethod(lose))


def _reader_skips_one(patch: pytest.MonkeyPatch) -> None:
    real = overrides._overrides
    patch.setattr(
        overrides, "_overrides", lambda data, where: tuple(o for o in real(data, where) if o.field != "autocast")
    )


def _engine_ignores_one(patch: pytest.MonkeyPatch) -> None:
    real = numerics.resolve
    patch.setitem(globals(), "resolve", lambda case: replace(real(case), autocast=preset(case.numerics).autocast))


def _command_forgets_one(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(overrides, "_options", lambda base, case: [])


@pytest.mark.parametrize("lose", [_from_dict_loses_one, _reader_skips_one, _engine_ignores_one, _command_forgets_one])
def test_a_field_dropped_anywhere_on_the_way_is_seen(
    lose: Callable[[pytest.MonkeyPatch], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_round_trip("autocast", "model", tmp_path)
    lose(monkeypatch)
    with pytest.raises(AssertionError):
        check_round_trip("autocast", "model", tmp_path)


@cache
def _engine() -> Engine:
    return build(cached("ltx-2.3"), "cpu")


def _small(**changes: Any) -> Case:
    request = tiny_request(height=32, width=32, num_frames=1, steps=1, sigmas=(1.0,))
    return tiny_case("ltx-2.3", "fp32", request, **changes)


ON_A_CPU = {field: values if field != "attention" else ("sdpa", "math") for field, values in choices().items()}


@pytest.mark.parametrize("turn", range(max(map(len, ON_A_CPU.values()))))
def test_what_the_engine_used_is_what_was_asked(turn: int) -> None:
    """Every field at once, each value in some turn, and back from the ledger of a sample."""
    asked = {field: values[turn % len(values)] for field, values in ON_A_CPU.items()}
    made = through_json(by_line(_small(), *(word for item in asked.items() for word in ("--set", "=".join(item)))))
    sample = _engine().generate(made, Probe(depth="step"))
    assert json.loads(json.dumps(sample.ledger["numerics"])) == asked


@pytest.mark.skipif(torch.cuda.is_available(), reason="they run on a CUDA device")
@pytest.mark.parametrize("backend", ["efficient", "cudnn", "fa3"])
def test_a_value_that_needs_another_device_reaches_the_engine_too(backend: str) -> None:
    with pytest.raises(UnsupportedCase, match=f"'{backend}'"):
        _engine().generate(by_line(_small(), "--set", f"attention={backend}"), Probe(depth="step"))


def test_the_command_line_counts_over_the_file_and_the_file_over_the_case(tmp_path: Path) -> None:
    case = replace(
        PLAIN,
        overrides=(Override(field="qk_norm", value="rounded-twice"), Override(field="rescale", value="whole-tensor")),
        quantization="none",
    )
    path = tmp_path / "config.json"
    path.write_text(
        json.dumps(
            {
                "numerics": {"rescale": "per-sample", "attention": "math", "stg": "zeros"},
                "quantization": "fp8-cast",
                "kernels": "on",
            }
        )
    )
    file = by_line(case, "--config", str(path))
    assert (file.quantization, file.kernels) == ("fp8-cast", "on")
    used = resolve(file)
    assert (used.qk_norm, used.rescale, used.attention, used.stg) == ("rounded-twice", "per-sample", "math", "zeros")
    line = by_line(
        case, "--config", str(path), "--set", "attention=flash", "--quantization", "checkpoint", "--kernels", "off"
    )
    assert (line.quantization, line.kernels) == ("checkpoint", "off")
    used = resolve(line)
    assert (used.qk_norm, used.rescale, used.attention, used.stg) == ("rounded-twice", "per-sample", "flash", "zeros")
    assert by_line(case) == case


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
@pytest.mark.parametrize("kernels", KERNELS)
def test_quantization_and_kernels_survive(quantization: str, kernels: str, tmp_path: Path) -> None:
    words = ("--quantization", quantization, "--kernels", kernels)
    made = by_line(PLAIN, *words)
    assert by_file(PLAIN, tmp_path, {"quantization": quantization, "kernels": kernels}) == made
    assert (made.quantization, made.kernels) == (quantization, kernels)
    assert through_json(made) == made
    picked, again = origin(made)
    assert by_line(CASES[picked], *again) == made


def test_what_a_preset_does_anyway_is_no_departure() -> None:
    usual = preset(PLAIN.numerics)
    words = [f"--set={field}={getattr(usual, field)}" for field in choices()]
    assert by_line(PLAIN, *words) == PLAIN
    assert origin(PLAIN) == (PLAIN.id, [])


def test_the_order_of_settings_is_no_part_of_a_case() -> None:
    words = ["--set=rescale=whole-tensor", "--set=attention=math"]
    assert by_line(PLAIN, *words) == by_line(PLAIN, *reversed(words))


def test_cases_that_become_one_run_once() -> None:
    both = [case for case in CASES.values() if case.id in (KERNEL, KERNEL.removesuffix("+kernels"))]
    assert len(both) == 2
    made = depart(both, settings=[], config=None, quantization=None, kernels="on", image=None)
    assert [case.id for case in made] == [KERNEL]


KERNEL = "ltx-2.3/one-stage-t2v/unguided@single+diffusers-fp32+kernels"


def test_every_case_of_the_matrix_is_its_own_origin_and_found_again_when_changed() -> None:
    for case in CASES.values():
        assert origin(case) == (case.id, [])
        made = Changes.parse(["stg=zeros", "autocast=model"], "--set").apply(replace(case, quantization="none"))
        picked, words = origin(made)
        assert by_line(CASES[picked], *words) == made
    stranger = replace(PLAIN, variant="unheard-of")
    assert origin(stranger) == (stranger.id, [])


def test_a_stored_reference_is_that_of_the_case_without_overrides() -> None:
    made = by_line(PLAIN, "--set", "attention=math", "--kernels", "on")
    stored, accepted = (cast(Any, SimpleNamespace(case=made, reference=which)) for which in ("stored", "self"))
    assert stored_as(stored) == replace(PLAIN, kernels="on")
    assert stored_as(accepted) == made, "the engine's accepted output is of what it was asked to do"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], "expected an object, got list"),
        ({"numeric": {}}, "unknown key 'numeric'; nearest is 'numerics'"),
        ({"disable_autocast": True}, "unknown key 'disable_autocast'; known: "),
        (
            {"numerics": {"disable_autocast": True}},
            "unknown field of the numerics 'disable_autocast'; nearest is 'autoc",
        ),
        ({"numerics": {"autocast": True}}, "'autocast' is True; expected one of ('off', 'model')"),
        ({"numerics": {"autocast": ["off"]}}, "'autocast' is ['off']; expected one of"),
        ({"numerics": {"zzz": "off"}}, "unknown field of the numerics 'zzz'; known: ['rope_grid_dtype', "),
        ({"numerics": ["autocast"]}, "'numerics' is ['autocast']; expected an object"),
        ({"quantization": "fp8"}, "'quantization' is 'fp8'; expected one of ('checkpoint', 'none', 'fp8-cast')"),
        ({"quantization": None}, "'quantization' is None; expected one of"),
        ({"kernels": True}, "'kernels' is True; expected one of ('off', 'on')"),
    ],
)
def test_a_bad_file_is_one_line(data: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        by_file(PLAIN, tmp_path, data)
    assert str(error.value).startswith(f"{tmp_path / 'config.json'}: ")
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "twice.json"
    path.write_text('{"numerics": {"attention": "math", "attention": "sdpa"}}')
    with pytest.raises(InputError, match="key 'attention' more than once"):
        by_line(PLAIN, "--config", str(path))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["attention"], "--set 'attention': expected FIELD=VALUE"),
        (["attention="], "--set: 'attention' is ''; expected one of"),
        (["attentoin=math"], "--set: unknown field of the numerics 'attentoin'; nearest is 'attention'"),
        (["attention=Math"], "--set: 'attention' is 'Math'; expected one of ('sdpa', "),
        (["attention=math", "attention=sdpa"], "'attention' was set to 'math' before"),
    ],
)
def test_a_bad_setting_ends_the_command_before_any_work(
    settings: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [word for setting in settings for word in ("--set", setting)]
    assert cli.main(["run", PLAIN.id, "--out", str(tmp_path / "out"), *flags]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_run_says_what_it_departed_from_and_how_to_repeat_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A whole run against diffusers, which knows nothing of overrides."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"numerics": {"latent_dtype": "model"}, "quantization": "none"}))
    out = tmp_path / "out"
    words = ["run", PLAIN.id, "--config", str(path), "--set", "attention=math", "--out", str(out), "--depth", "step"]
    assert cli.main([*words, "--json", "-"]) == 4
    (result,) = json.loads(capsys.readouterr().out)["cases"]
    used = result["ledger"]["candidate"]["numerics"]
    assert used == asdict(preset("diffusers")) | {"latent_dtype": "model", "attention": "math"}
    assert result["id"] == f"{PLAIN.id}+none+attention=math+latent_dtype=model"
    flags = "--set attention=math --set latent_dtype=model --quantization none"
    assert result["command"] == f"conformance run '{PLAIN.id}' {flags}"
    assert result["verdict"] == "CALIBRATION_NEEDED"
    assert f"no limits were measured with {flags} (those of {PLAIN.id} do not count for it)" in result["reason"]
    again = by_line(PLAIN, *result["command"].split()[3:])
    assert again == Case.from_dict(result["case"])
    assert select(all_cases(), [PLAIN.id], "default") == [PLAIN]
