"""The official packages as a reference: found, refused, or missing with one line that says how to get them."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from engine_reference import ALL_GUIDANCE, tiny_case, tiny_request
from safetensors import safe_open
from safetensors.torch import load_file

from conformance import job
from conformance.case import Guidance, ImageCondition, SecondStage
from conformance.errors import InputError, ReferenceMissing, UnsupportedCase
from conformance.generator import Probe
from conformance.matrix import all_cases, select
from conformance.tiling import Tiles, VideoTiling
from engine.models.ltx2 import mapping
from engine.numerics import PRESETS
from reference_impl.official import generator, packages, versions
from reference_impl.tiny import official_file
from reference_impl.tiny.build import MODELS, cached

NAME = "official-1.0.0"
PICTURE = ImageCondition(picture="rings", height=64, width=96, crf=0, strength=1.0)
TILES = VideoTiling(rows=None, columns=None, frames=Tiles(size=8, stride=8))
SECOND = SecondStage(sigmas=(0.9, 0.4), lora_first=0.0, lora_second=1.0)


def _without(monkeypatch: pytest.MonkeyPatch, absent: str) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == absent else real(name, *rest))


def test_absent_packages_are_a_missing_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(packages.SETTING, raising=False)
    _without(monkeypatch, "ltx_core")
    for call in (packages.install, packages.installed_version, lambda: generator.build(cached("ltx-2"), "cpu")):
        with pytest.raises(ReferenceMissing, match=r"no module 'ltx_core'; `make official` installs version 1\.0\.0"):
            call()


def test_a_setting_that_is_no_checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(packages.SETTING, str(tmp_path))
    with pytest.raises(InputError, match="no folder packages/ltx-pipelines/src; expected a checkout"):
        packages.install()


def test_a_checkout_is_found_before_anything_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    project = tmp_path / "packages" / "ltx-core"
    (project / "src" / "ltx_core").mkdir(parents=True)
    (project / "src" / "ltx_core" / "__init__.py").write_text("raise ImportError('half a checkout')\n")
    (tmp_path / "packages" / "ltx-pipelines" / "src" / "ltx_pipelines").mkdir(parents=True)
    monkeypatch.setenv(packages.SETTING, str(tmp_path))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(packages, "_NEEDED", ("ltx_core",))
    kept = {name: module for name, module in sys.modules.items() if name.split(".")[0] in ("ltx_core", "ltx_pipelines")}
    for name in kept:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ReferenceMissing, match=r"cannot be imported \(half a checkout\)"):
        packages.install()
    for version, found in (("1.2.0", "1.2.0"), ("../1", None), (None, None)):
        text = "[project]\n" if version is None else f'[project]\nversion = "{version}"\n'
        (project / "pyproject.toml").write_text(text)
        if found:
            assert packages.installed_version() == found
        else:
            with pytest.raises(ReferenceMissing, match="version"):
                packages.installed_version()


def test_the_reference_follows_from_the_numerics() -> None:
    for suite, version in (("official", "1.0.0"), ("official-1.2.0", "1.2.0")):
        cases = select(all_cases(), [], suite)
        assert {case.numerics for case in cases} == {f"official-{version}"}
        assert {job.reference_of(case) for case in cases} == {"official"}
        assert set(cases) <= set(select(all_cases(), [], "full"))
    assert {job.reference_of(case) for case in select(all_cases(), [], "default")} == {"diffusers"}
    assert {case.numerics for case in all_cases()} <= PRESETS.keys()
    assert {"official", "diffusers"} == job.REFERENCES.keys()


@pytest.mark.parametrize(
    ("request_changes", "case_changes", "message"),
    [
        ({"prompts": ("a", "b"), "negative_prompts": ("", "")}, {}, "number of prompts"),
        ({}, {"pipeline": "keyframes"}, "pipeline 'keyframes'"),
        ({}, {"model": "ltx-9"}, "model 'ltx-9'"),
        ({"vae_tiling": TILES}, {}, r"vae_tiling .* it runs \(None,\)"),
        (
            {**ALL_GUIDANCE, "audio_guidance": Guidance(cfg=7.0, stg=0.0, modality=3.0, rescale=0.7)},
            {},
            "stg is above 0",
        ),
    ],
)
def test_what_the_packages_cannot_do(request_changes: dict, case_changes: dict, message: str) -> None:
    case = tiny_case("ltx-2", "fp32", tiny_request(**request_changes))
    with pytest.raises(UnsupportedCase, match=message):
        generator.check_case(replace(case, **case_changes), versions.of("1.0.0"))


def test_what_is_not_called_of_a_later_version() -> None:
    case = tiny_case("ltx-2", "fp32", tiny_request(skip_v2a=True))
    generator.check_case(case, versions.of("1.0.0"))
    with pytest.raises(UnsupportedCase, match="skip_v2a True"):
        generator.check_case(case, versions.of("1.2.0"))


@pytest.mark.parametrize("version", versions.VERSIONS)
@pytest.mark.parametrize(
    ("request_changes", "pipeline"),
    [({"image": PICTURE}, "one-stage-ti2v"), ({"second": SECOND, "height": 128, "width": 192}, "two-stage-t2v")],
)
def test_what_every_version_runs(request_changes: dict, pipeline: str, version: str) -> None:
    case = replace(
        tiny_case("ltx-2", "fp32", tiny_request()), pipeline=pipeline, request=tiny_request(**request_changes)
    )
    generator.check_case(case, versions.of(version))


def test_a_version_that_is_not_known() -> None:
    with pytest.raises(ReferenceMissing, match=r"version is 9; expected one of \['1.0.0', '1.2.0'\]"):
        versions.of("9")


def test_another_version_is_not_the_reference_of_the_case() -> None:
    case = tiny_case("ltx-2", "fp32", tiny_request(), numerics=NAME)
    other = generator.OfficialGenerator(cached("ltx-2"), "cpu", "1.2.0")
    expected = (
        r"wants official-1\.0\.0; installed is official-1\.2\.0; `make official` installs version 1\.0\.0, .*checkout"
    )
    with pytest.raises(ReferenceMissing, match=expected):
        other.generate(case, Probe())


def test_another_model_is_refused() -> None:
    other = generator.OfficialGenerator(cached("ltx-2"), "cpu", "1.0.0")
    with pytest.raises(InputError, match=r"not a checkpoint of ltx-2\.3"):
        other.generate(tiny_case("ltx-2.3", "fp32", tiny_request(), numerics=NAME), Probe())


@pytest.mark.parametrize("model", MODELS)
def test_the_tiny_single_file_holds_the_folder(model: str) -> None:
    path = official_file.cached(model)
    assert path == official_file.cached(model)
    components = mapping.to_diffusers(load_file(path))
    for component, tensors in components.items():
        (stored,) = (cached(model) / component).glob("*.safetensors")
        expected = load_file(stored)
        assert tensors.keys() == expected.keys()
        assert all(tensors[key].equal(expected[key]) for key in expected)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    assert metadata["model_version"] == {"ltx-2": "2.0", "ltx-2.3": "2.3"}[model]
    assert json.loads(metadata["config"]).keys() == {"transformer", "vae", "audio_vae", "vocoder"}
