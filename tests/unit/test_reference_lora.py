"""The distilled LoRA of two stages through diffusers, and what two stages refuse."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import slow_parts
import torch
from diffusers.pipelines.ltx2.latent_upsampler import LTX2LatentUpsamplerModel
from reference_cases import GUIDED, case, generator
from safetensors.torch import load_file, save_file
from two_stage_cases import PICTURE, lora, sample, wanted

from conformance.case import Case, ImageCondition
from conformance.errors import InputError, UnsupportedCase
from conformance.generator import Probe
from engine.models.ltx2 import mapping
from reference_impl.diffusers_load import DTYPES
from reference_impl.diffusers_lora import check_lora, merged
from reference_impl.diffusers_ltx2 import build
from reference_impl.tiny.build import cached


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("strength", [0.25, 1.0])
@pytest.mark.parametrize("model", slow_parts.MODELS)
def test_merged_weights_are_the_sum(model: str, strength: float, dtype: str) -> None:
    base, wide = generator(model)._pipeline(dtype), DTYPES[dtype]
    before = {name: tensor.clone() for name, tensor in base.transformer.state_dict().items()}
    factors = load_file(lora(model))
    after = merged(base, lora(model), strength).state_dict()
    expected = dict(before)
    for name in factors:
        if ".lora_A." in name:
            stem = name.removesuffix(".lora_A.weight")
            _, layer = mapping.diffusers_name(f"model.{stem}.weight")
            a, b = (factors[f"{stem}.lora_{half}.weight"].to(wide).float() for half in "AB")
            expected[layer] = before[layer] + (b @ a * strength).to(wide)
    assert sum(expected[name] is not before[name] for name in before) == len(factors) // 2 == 84
    assert after.keys() == expected.keys()
    for name, tensor in after.items():
        assert torch.equal(tensor, expected[name]), name
        assert (expected[name] is before[name]) == torch.equal(tensor, before[name]), name
    for name, tensor in base.transformer.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert merged(base, lora(model), 0.0) is base.transformer


def test_an_alpha_in_the_file_scales(tmp_path: Path) -> None:
    """As diffusers reads what it writes, beside factors with official names too."""
    base, path = generator("ltx-2.3")._pipeline("fp32"), tmp_path / "alpha-distilled-lora.safetensors"
    names = {name.rpartition(".lora_")[0].removeprefix("diffusion_model.") for name in load_file(lora())}
    config = {"r": 4, "lora_alpha": 8, "target_modules": sorted(names), "peft_type": "LORA"}
    metadata = {"lora_adapter_metadata": json.dumps({f"transformer.{key}": value for key, value in config.items()})}
    save_file({name: tensor.clone() for name, tensor in load_file(lora()).items()}, path, metadata=metadata)
    doubled, half = (merged(base, *given).state_dict() for given in ((path, 0.5), (lora(), 1.0)))
    assert all(torch.equal(doubled[name], half[name]) for name in half)


def test_each_stage_has_its_own_strength() -> None:
    none, first, second, both = (
        sample(first=one, second=two) for one, two in ((0.0, 0.0), (0.25, 0.0), (0.0, 0.25), (0.25, 0.25))
    )
    end = "latents/final/video"
    for one, other, same_first in ((none, second, True), (first, both, True), (none, first, False)):
        assert torch.equal(one.tensors[f"stage.1/{end}"], other.tensors[f"stage.1/{end}"]) is same_first
        assert not torch.equal(one.tensors[f"stage.2/{end}"], other.tensors[f"stage.2/{end}"])
    for made, lora_first, lora_second in ((none, 0.0, 0.0), (first, 0.25, 0.0), (both, 0.25, 0.25)):
        echo = made.resolved["second_stage"]["lora"]
        assert (echo["first"], echo["second"]) == (lora_first, lora_second)
        assert (echo["digest"] is None) == (made is none)
    assert both.resolved["weights"] == none.resolved["weights"]


def test_nothing_leaks_into_the_next_case() -> None:
    source = build(cached("ltx-2.3"), "cpu")
    one_stage = case(sigmas=None, **GUIDED)

    def digests(wanted_case: Case) -> dict[str, str]:
        made = source.generate(wanted_case, Probe(depth="step"))
        return {name: tap.sha256 for name, tap in made.trace.items()} | {"ledger": str(made.ledger)}

    fresh = digests(one_stage)
    stages = digests(wanted(image=True, **GUIDED))
    assert digests(one_stage) == fresh
    assert digests(wanted(image=True, **GUIDED)) == stages
    assert not any("lora" in name for name, _ in source._pipeline("fp32").transformer.named_modules())


def test_refuses_what_it_cannot_do() -> None:
    half = ImageCondition(**PICTURE.as_dict() | {"strength": 0.5})
    fp8 = wanted().as_dict() | {"quantization": "fp8-cast"}
    for reason, refused in {
        "leaves out both cross attentions": wanted(skip_v2a=True),
        "fp8": Case.from_dict(fp8),
        "knows no strength": case(
            pipeline="two-stage-ti2v", height=128, width=192, image=half, second=wanted().request.second
        ),
        "pipeline 'two-stage-hq-t2v'": wanted(pipeline="two-stage-hq-t2v"),
    }.items():
        with pytest.raises(UnsupportedCase, match=reason):
            generator("ltx-2.3").generate(refused, Probe())
    thin = ImageCondition(**PICTURE.as_dict() | {"height": 1})
    with pytest.raises(InputError, match="at least 2 pixels each"):
        generator("ltx-2.3").generate(case(pipeline="one-stage-ti2v", image=thin), Probe())


def folder_without(tmp_path: Path, *patterns: str) -> Path:
    """A copy of the checkpoint, cheap through links, without some of its files."""
    return Path(
        shutil.copytree(
            cached("ltx-2.3"), tmp_path / "model", copy_function=lambda a, b: Path(b).hardlink_to(a),
            ignore=shutil.ignore_patterns(*patterns),
        )
    )  # fmt: skip


def refusal(folder: Path, **changes: Any) -> str:
    with pytest.raises(InputError) as caught:
        build(folder, "cpu").generate(wanted(**changes), Probe(on_tap=lambda name: pytest.fail(f"{name} came first")))
    return str(caught.value)


def test_a_missing_upsampler_is_named_first(tmp_path: Path) -> None:
    folder = folder_without(tmp_path, "latent_upsampler")
    assert refusal(folder) == f"{folder}: latent_upsampler: component folder is missing; two stages need it"


def test_a_missing_lora_is_named_first_and_only_where_it_is_needed(tmp_path: Path) -> None:
    folder = folder_without(tmp_path, "*distilled-lora*")
    assert "no distilled LoRA" in refusal(folder)
    assert "no distilled LoRA" in refusal(folder, first=0.25, second=0.0)
    made = build(folder, "cpu").generate(wanted(first=0.0, second=0.0), Probe(depth="step"))
    assert made.resolved == sample(first=0.0, second=0.0).resolved


def test_a_lora_of_another_model_is_named(tmp_path: Path) -> None:
    tensors, pipeline = load_file(lora()), generator("ltx-2.3")._pipeline("fp32")
    key = "diffusion_model.transformer_blocks.0.attn1.to_q.lora_A.weight"
    other = key.replace("lora_A", "lora_B")
    a, b = tensors[key], tensors[other]
    without = {name: tensor for name, tensor in tensors.items() if name != other}
    elsewhere = key.replace("blocks.0", "blocks.48"), other.replace("blocks.0", "blocks.48")
    damages = {
        "is without its other factor": without,
        "the transformer has no such linear layer": tensors | dict(zip(elsewhere, (a, b), strict=True)),
        "has no such linear layer": tensors | {name.replace("to_q", "norm_q"): tensors[name] for name in (key, other)},
        "is of shape (4, 130); expected (4, 128)": tensors | {key: torch.ones(4, 130, dtype=a.dtype)},
        "is of shape (4, 128); expected (5, 128)": tensors | {other: torch.ones(128, 5, dtype=a.dtype)},
        "is of shape (4,); expected": tensors | {key: torch.ones(4, dtype=a.dtype)},
        "'diffusion_model.x.alpha'; expected": tensors | {"diffusion_model.x.alpha": torch.ones(())},
        "'text_embedding_projection.aggregate_embed.lora_A.weight'; expected": tensors
        | {"text_embedding_projection.aggregate_embed.lora_A.weight": a},
        "no tensors": {},
    }
    for number, (reason, damaged) in enumerate(damages.items()):
        path = tmp_path / f"{number}-distilled-lora.safetensors"
        save_file({name: tensor.clone() for name, tensor in damaged.items()}, path)
        with pytest.raises(InputError) as caught:
            check_lora(path, pipeline)
        assert str(caught.value).startswith(f"{path}: ")
        assert reason in str(caught.value)
    folder = folder_without(tmp_path, "*distilled-lora*")
    save_file(without, folder / "x-distilled-lora.safetensors")
    assert "without its other factor" in refusal(folder)


def test_an_upsampler_of_another_factor_is_an_error(tmp_path: Path) -> None:
    folder = folder_without(tmp_path, "latent_upsampler")
    config = dict(LTX2LatentUpsamplerModel.load_config(cached("ltx-2.3") / "latent_upsampler"))
    with torch.random.fork_rng(devices=[]):
        made = LTX2LatentUpsamplerModel.from_config(
            config | {"rational_spatial_scale": 4.0, "use_rational_resampler": True}
        )
    made.save_pretrained(folder / "latent_upsampler")
    with pytest.raises(InputError, match=r"latent_upsampler makes latents of .* expected twice the height and width"):
        build(folder, "cpu").generate(wanted(), Probe(depth="step"))
