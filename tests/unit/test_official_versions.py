"""What is particular to a version of the official packages, without them: stand-ins take their place."""

from __future__ import annotations

import inspect
import sys
from enum import IntEnum
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from conformance.errors import ReferenceMissing
from engine.numerics import PRESETS
from reference_impl.official import packages, taps, v1_0, v1_2, versions


@pytest.mark.parametrize("version", versions.VERSIONS)
def test_every_version_has_every_function_and_a_preset(version: str) -> None:
    names = [name for name, value in vars(versions.Version).items() if inspect.isfunction(value) and name[0] != "_"]
    assert len(names) == 7
    for name in names:
        wanted = list(inspect.signature(getattr(versions.Version, name)).parameters)[1:]  # without self
        assert list(inspect.signature(getattr(versions.VERSIONS[version], name)).parameters) == wanted
    assert f"official-{version}" in PRESETS


def test_the_installed_version_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    for version, module in (("1.0.0", v1_0), ("1.2.0", v1_2)):
        monkeypatch.setattr(packages, "installed_version", lambda found=version: found)
        assert versions.installed() is module
    monkeypatch.setattr(packages, "installed_version", lambda: "1.1.0")
    with pytest.raises(ReferenceMissing, match=r"version is 1\.1\.0; expected one of \['1\.0\.0', '1\.2\.0'\]"):
        versions.installed()


def test_a_stand_in_is_there_for_the_import_alone() -> None:
    name = "a_module_that_nobody_has"
    with packages._stand_in(name):
        assert __import__(name).__name__ == name
    assert name not in sys.modules
    with pytest.raises(RuntimeError), packages._stand_in(name):
        raise RuntimeError
    assert name not in sys.modules
    with packages._stand_in("json"):
        assert sys.modules["json"].__file__
    assert "json" in sys.modules


def test_configurators_and_prompts() -> None:
    seen: list[Any] = []
    configurator = SimpleNamespace(from_config=seen.append, from_metadata=seen.append)
    v1_0.configured(configurator, {"vae": 1})
    v1_2.configured(configurator, {"vae": 1})
    assert seen == [{"vae": 1}, {"config": {"vae": 1}}]
    assert v1_0.encode(SimpleNamespace(encode=str.upper), ["a", "b"]) == ["A", "B"]
    assert v1_2.encode(SimpleNamespace(encode=lambda prompts: tuple(prompts)), ["a", "b"]) == ["a", "b"]


def test_a_loaded_transformer_is_handed_over_as_it_is() -> None:
    model = torch.nn.Linear(1, 1)
    builder = v1_2._Loaded(model)
    assert builder.with_module_ops(()).with_sd_ops(None).with_loras(()).build(device="cpu", video_tools=None) is model
    for change in (builder.with_module_ops, builder.with_sd_ops, builder.with_loras):
        with pytest.raises(RuntimeError, match="want to change"):
            change(("a LoRA",))


class Kind(IntEnum):
    SKIP_VIDEO_SELF_ATTN = 0
    SKIP_AUDIO_SELF_ATTN = 1
    SKIP_A2V_CROSS_ATTN = 2


def test_branches_of_either_version(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("ltx_core.guidance.perturbations")
    module.PerturbationType = Kind  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    positive, negative = torch.zeros(1, 2), torch.ones(1, 2)

    def branch(text: torch.Tensor, skipped: dict[Kind, int] | None, last: str, negative: Any = negative) -> str:
        config = (
            None if skipped is None else SimpleNamespace(any_in_batch=lambda kind, block: skipped.get(kind) == block)
        )
        return taps._branch(SimpleNamespace(context=text), config, negative, last, 2)

    for nothing in (None, {}):
        assert branch(positive, nothing, "modality") == "cond"
        assert branch(negative.clone(), nothing, "cond") == "uncond"
        assert branch(positive, nothing, "cond", None) == "cond"  # the next step, without CFG
        assert branch(negative, nothing, "uncond") == "cond"  # both prompts are one text
    for kind in (Kind.SKIP_VIDEO_SELF_ATTN, Kind.SKIP_AUDIO_SELF_ATTN):
        assert branch(positive, {kind: 1}, "uncond") == "stg"
    assert branch(positive, {Kind.SKIP_A2V_CROSS_ATTN: 0}, "stg") == "modality"
