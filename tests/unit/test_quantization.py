"""fp8-cast weights: what is asked of a checkpoint, what is held, and equality with the official policy."""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_reference import ALL_GUIDANCE, CPU, DIFFUSERS, DTYPES, dit_inputs, engine_dit, tiny_case, tiny_request
from official_packages import VERSION, only
from safetensors.torch import load_file, save_file

from conformance import cli
from conformance.errors import InputError, UnsupportedCase
from conformance.generator import Probe, Sample
from conformance.handshake import handshake
from conformance.matrix import all_cases
from conformance.quantization import KEY, resolve, selects
from engine import quantization
from engine.generator import build
from engine.models.ltx2.config import TransformerConfig
from engine.models.ltx2.transformer import LTX2Transformer
from engine.quantization import FP8, Fp8Linear
from reference_impl import diffusers_ltx2
from reference_impl.tiny.build import MODELS, cached

FILE = "diffusion_pytorch_model.safetensors"
CASE = "ltx-2.3/one-stage-t2v/unguided@single+diffusers-bf16"
ONE = "transformer_blocks.1.audio_ff.net.2.weight"
Tensors = dict[str, torch.Tensor]
official = only("1.0.0", "1.2.0")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return shutil.copytree(cached("ltx-2.3"), tmp_path / "model", symlinks=True)


def change(folder: Path, edit: Callable[[Tensors], Any]) -> None:
    path = folder / "transformer" / FILE
    tensors = load_file(path)
    edit(tensors)
    path.unlink()
    save_file(tensors, path)


def say(folder: Path, found: Any) -> None:
    path = folder / "transformer" / "config.json"
    data = json.loads(path.read_text()) | {KEY: found}
    path.unlink()
    path.write_text(json.dumps(data))


def stored_as_fp8(tensors: Tensors) -> None:
    tensors.update({name: tensor.to(FP8) for name, tensor in tensors.items() if selects(name)})


def load(folder: Path, dtype: torch.dtype = torch.bfloat16, quantized: str = "fp8-cast") -> LTX2Transformer:
    transformer = folder / "transformer"
    made = partial(LTX2Transformer, TransformerConfig.load(transformer))
    return quantization.load(made, transformer, dtype, CPU, quantization=quantized)


def run(folder: Path, quantized: str, **changes: Any) -> Sample:
    case = tiny_case("ltx-2.3", "bf16", tiny_request(), quantization=quantized, **changes)
    return build(folder, "cpu").generate(case, Probe(depth="step"))


def test_what_is_held_narrow() -> None:
    state = engine_dit("ltx-2.3", torch.float32).state_dict()
    narrow = {name.split(".", 2)[2] for name in state if selects(name)}
    attentions = ("attn1", "attn2", "audio_attn1", "audio_attn2", "audio_to_video_attn", "video_to_audio_attn")
    layers = [f"{a}.{part}" for a in attentions for part in ("to_q", "to_k", "to_v", "to_out.0")]
    layers += [f"{ff}.{part}" for ff in ("ff", "audio_ff") for part in ("net.0.proj", "net.2")]
    assert narrow == {f"{layer}.{part}" for layer in layers for part in ("weight", "bias")}
    assert len([name for name in state if selects(name)]) == len(narrow) * 3, "in each of three blocks"


@official
@pytest.mark.parametrize("model", MODELS)
def test_the_official_policy_selects_the_same_and_rounds_to_the_same_bits(model: str) -> None:
    """Under ties, denormals, values below the smallest and the largest of all, from each dtype that is stored."""
    from ltx_core.model import transformer

    from reference_impl.official import versions
    from reference_impl.official.config import official_config
    from reference_impl.official.load import _renamed, single_file
    from reference_impl.official.quantization import fp8_cast

    with torch.device("meta"):
        dit = versions.installed().configured(transformer.LTXModelConfigurator, official_config(cached(model)))
    stored = _renamed(single_file(cached(model)), transformer.LTXV_MODEL_COMFY_RENAMING_MAP)
    theirs = fp8_cast(dit, stored)
    mine = load(cached(model)).state_dict()
    assert {name for name in theirs if theirs[name].dtype == FP8} == {name for name in mine if mine[name].dtype == FP8}
    for name in mine:
        if mine[name].dtype == FP8:
            assert torch.equal(mine[name].view(torch.uint8), theirs[name].view(torch.uint8)), name


@official
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_value_is_rounded_as_the_packages_round_it(dtype: torch.dtype, folder: Path) -> None:
    from ltx_core.quantization import TRANSFORMER_LINEAR_DOWNCAST_MAP

    steps = torch.arange(2**16, dtype=torch.int32).to(torch.uint16).view(torch.bfloat16).float()
    values = torch.cat([steps, steps * (1 + 2**-12), torch.linspace(-448, 448, 65536)])
    values = values[values.abs() <= 448]  # NaN and what is clipped are refused
    shape = engine_dit("ltx-2.3", torch.float32).state_dict()[ONE].shape
    count = shape.numel()
    for part in values.to(dtype).split(count):
        weight = torch.zeros(count, dtype=dtype)
        weight[: len(part)] = part
        change(folder, lambda tensors, weight=weight: tensors.update({ONE: weight.view(shape).clone()}))
        (theirs,) = TRANSFORMER_LINEAR_DOWNCAST_MAP.apply_to_key_value(ONE, weight.view(shape))
        mine = load(folder).state_dict()[ONE]
        assert torch.equal(mine.view(torch.uint8), theirs.new_value.view(torch.uint8))


@official
@official
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("model", MODELS)
def test_a_whole_case_is_equal_to_the_official_packages(model: str, dtype: str) -> None:
    from reference_impl.official import generator

    case = tiny_case(
        model, dtype, tiny_request(**ALL_GUIDANCE), numerics=f"official-{VERSION}", quantization="fp8-cast"
    )
    mine, theirs = Probe(), Probe()
    engine = build(cached(model), "cpu").generate(case, mine)
    reference = generator.build(cached(model), "cpu").generate(case, theirs)
    assert mine.trace.keys() == theirs.trace.keys()
    assert [name for name, tap in mine.trace.items() if tap.sha256 != theirs.trace[name].sha256] == []
    assert engine.resolved["quantization"] == reference.resolved["quantization"] == "fp8-cast"
    assert handshake(engine.resolved, reference.resolved) is None
    assert np.array_equal(engine.frames, reference.frames)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("model", MODELS)
def test_a_forward_is_that_of_the_widened_weights(model: str, dtype: torch.dtype) -> None:
    inputs = dit_inputs(model, dtype)
    plain = load(cached(model), dtype, "none")
    before = plain(inputs, DIFFUSERS)
    narrow = load(cached(model), dtype)
    wide = {name: value.to(dtype) for name, value in narrow.state_dict().items()}
    plain.load_state_dict(wide)
    expected, found = plain(inputs, DIFFUSERS), narrow(inputs, DIFFUSERS)
    for a, b, c in zip(found, expected, before, strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c), "the weights are not exact in float8"


def test_no_wide_copy_is_held() -> None:
    dit = load(cached("ltx-2.3"))
    plain = load(cached("ltx-2.3"), quantized="none")
    state, full = dit.state_dict(), plain.state_dict()
    sizes = {name: tensor.nbytes for name, tensor in state.items()}
    assert sizes == {name: tensor.nbytes // (2 if selects(name) else 1) for name, tensor in full.items()}
    assert all(isinstance(dit.get_submodule(name.rpartition(".")[0]), Fp8Linear) for name in state if selects(name))
    shapes = {tuple(tensor.shape) for name, tensor in state.items() if selects(name) and tensor.ndim == 2}
    del plain, full

    def held() -> int:
        """Wide matrices of the shapes of those weights that anybody refers to."""
        gc.collect()
        return sum(
            type(item) in (torch.Tensor, torch.nn.Parameter)
            and item.dtype == torch.bfloat16
            and tuple(item.shape) in shapes
            for item in gc.get_objects()
        )

    inputs, before = dit_inputs("ltx-2.3", torch.bfloat16), held()
    dit(inputs, DIFFUSERS)
    assert held() == before


def test_explicit_counts_over_the_checkpoint_and_the_echo_is_what_was_loaded(folder: Path) -> None:
    asked = ("checkpoint", "none", "fp8-cast")
    assert [resolve(quantized, folder) for quantized in asked] == ["none", "none", "fp8-cast"]
    assert [run(folder, quantized).resolved["quantization"] for quantized in asked] == ["none", "none", "fp8-cast"]
    say(folder, {"quant_method": "fp8-cast"})
    assert [resolve(quantized, folder) for quantized in asked] == ["fp8-cast", "none", "fp8-cast"]
    samples = {quantized: run(folder, quantized) for quantized in asked}
    assert [samples[each].resolved["quantization"] for each in asked] == ["fp8-cast", "none", "fp8-cast"]
    assert torch.equal(samples["checkpoint"].latents["video"], samples["fp8-cast"].latents["video"])
    assert not torch.equal(samples["none"].latents["video"], samples["fp8-cast"].latents["video"])


def test_one_engine_loads_again_for_another_quantization() -> None:
    engine, found = build(cached("ltx-2.3"), "cpu"), []
    for quantized in ("none", "fp8-cast", "none"):
        case = tiny_case("ltx-2.3", "bf16", tiny_request(), quantization=quantized)
        sample = engine.generate(case, Probe(depth="step"))
        found.append((sample.resolved["quantization"], sample.trace["latents/final/video"].sha256))
    assert [name for name, _ in found] == ["none", "fp8-cast", "none"]
    assert found[0] == found[2] != found[1]


def test_weights_stored_as_float8_load_under_fp8_cast_alone_and_keep_their_bits(folder: Path) -> None:
    rounded = load(folder).state_dict()
    change(folder, stored_as_fp8)
    kept = load(folder).state_dict()
    assert all(torch.equal(kept[name].view(torch.uint8), rounded[name].view(torch.uint8)) for name in kept)
    stored = load_file(folder / "transformer" / FILE)
    assert torch.equal(kept[ONE].view(torch.uint8), stored[ONE].view(torch.uint8))
    assert resolve("fp8-cast", folder) == "fp8-cast"
    expected = r"'dtype' is 'F8_E4M3'; expected one of .*, or --quantization fp8-cast"
    for quantized in ("none", "checkpoint"):
        with pytest.raises(InputError, match=rf"transformer: tensor '.*': {expected}"):
            resolve(quantized, folder)
    with pytest.raises(InputError, match="'dtype' is 'F8_E4M3'; expected one of"):
        load(folder, quantized="none")
    say(folder, {"quant_method": "fp8-cast"})
    assert resolve("checkpoint", folder) == "fp8-cast"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t.update({f"{ONE}_scale": torch.ones(())}), f"tensor '{ONE}_scale': scaled quantization is not"),
        (lambda t: t.update({"x.input_scale": torch.ones(())}), "tensor 'x.input_scale': scaled quantization is not"),
        (lambda t: t.update(scaled_fp8=torch.ones(2).to(FP8)), "tensor 'scaled_fp8': scaled quantization is not"),
        (
            lambda t: t.update({ONE: t[ONE].to(torch.float8_e5m2)}),
            f"tensor '{ONE}': 'dtype' is 'F8_E5M2'; expected one",
        ),
        (
            lambda t: t.update({"proj_in.weight": t["proj_in.weight"].to(FP8)}),
            "tensor 'proj_in.weight': 'dtype' is 'F8_E4M3'; expected one of ('F64', 'F32', 'F16', 'BF16')",
        ),
    ],
    ids=["weight_scale", "input_scale", "scaled_fp8", "e5m2", "another layer"],
)
def test_what_cannot_be_honoured_is_one_line_before_any_work(
    edit: Callable[[Tensors], Any], message: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(folder, edit)
    with pytest.raises(InputError) as error:
        resolve("fp8-cast", folder)
    assert message in str(error.value)
    words = ["run", CASE, "--checkpoint", str(folder), "--quantization", "fp8-cast", "--out", str(tmp_path / "out")]
    assert cli.main(words) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out" / "cases").exists()


@pytest.mark.parametrize(
    "found", [{"quant_method": "nvfp4"}, {"quant_method": "fp8-cast", "block": 32}, "fp8-cast", {}]
)
def test_metadata_that_cannot_be_honoured_is_named(found: Any, folder: Path) -> None:
    say(folder, found)
    with pytest.raises(InputError) as error:
        resolve("checkpoint", folder)
    assert f"config.json: '{KEY}' is {found!r}; expected absent, or {{'quant_method': 'fp8-cast'}}" in str(error.value)
    assert resolve("none", folder) == "none", "an explicit word counts over it"


@pytest.mark.parametrize("value", [449.0, -float("inf"), float("nan")])
def test_a_weight_out_of_range_is_named_not_clipped(value: float, folder: Path) -> None:
    def edit(tensors: Tensors) -> None:
        tensors[ONE] = tensors[ONE].float()
        tensors[ONE][1, 2] = value

    change(folder, edit)
    with pytest.raises(InputError, match=f"tensor '{ONE}': 'largest magnitude' is .*; expected at most 448.0"):
        load(folder)


def test_diffusers_says_that_it_does_not_know_it_also_where_the_checkpoint_asks(folder: Path) -> None:
    say(folder, {"quant_method": "fp8-cast"})
    with pytest.raises(UnsupportedCase, match="diffusers does not cast weights to fp8"):
        diffusers_ltx2.build(folder, "cpu").generate(tiny_case("ltx-2.3", "bf16", tiny_request()), Probe())


def test_fused_kernels_and_taps_see_the_same_model() -> None:
    case = tiny_case("ltx-2.3", "bf16", tiny_request(), quantization="fp8-cast")
    fused = tiny_case("ltx-2.3", "bf16", tiny_request(), quantization="fp8-cast", kernels="on")
    traces = []
    for each in (case, fused):
        probe = Probe()
        build(cached("ltx-2.3"), "cpu").generate(each, probe)
        traces.append({name: tap.sha256 for name, tap in probe.trace.items()})
    assert traces[0] == traces[1]
    assert "step.000/cond/block.02/ff/out" in traces[0]


def test_a_lora_on_narrow_weights_is_unsupported() -> None:
    (case,) = [
        case
        for case in all_cases()
        if case.model == "ltx-2.3"
        and case.dtype == "bf16"
        and case.request.second is not None
        and case.request.second.lora_second
        and case.numerics == "official-1.0.0"
    ][:1]
    with pytest.raises(UnsupportedCase, match="'quantization' is 'fp8-cast'; the engine merges a LoRA into wide"):
        build(cached("ltx-2.3"), "cpu").generate(replace(case, quantization="fp8-cast"), Probe(depth="step"))
