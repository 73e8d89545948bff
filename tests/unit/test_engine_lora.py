"""LoRA files read strictly, and merged bit for bit as the official packages and peft merge them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_reference import CPU, DIFFUSERS, DTYPES, MODELS, dit_inputs, engine_connectors, engine_dit
from official_packages import require
from safetensors.torch import load_file, save_file

from conformance import checkpoint
from conformance.errors import InputError
from conformance.preparation import check_lora
from engine import lora
from engine.models.ltx2 import mapping
from engine.numerics import PRESETS, Numerics
from reference_impl.diffusers_load import load
from reference_impl.tiny import official_file
from reference_impl.tiny.build import cached
from reference_impl.tiny.lora import FILE

OFFICIAL = Numerics.official_1_0_0()
FP32_DELTA = replace(OFFICIAL, lora_delta_dtype="float32")
LAYER = "diffusion_model.transformer_blocks.0.attn1.to_q"
A, B = f"{LAYER}.lora_A.weight", f"{LAYER}.lora_B.weight"
State = dict[str, torch.Tensor]


def tiny(model: str = "ltx-2.3") -> Path:
    return cached(model) / FILE


def write(path: Path, changes: Mapping[str, torch.Tensor | None] | None = None, **options: Any) -> Path:
    """The tiny file of LTX-2.3 with some tensors replaced, added or (None) left out."""
    tensors = load_file(tiny())
    for key, tensor in (changes or {}).items():
        tensors.pop(key, None)
        if tensor is not None:
            tensors[key] = tensor.clone()
    save_file(tensors, path / "lora.safetensors", **options)
    return path / "lora.safetensors"


def wide(model: str, path: Path) -> Path:
    """The tiny file with float32 factors that bfloat16 cannot hold."""
    save_file({key: value.float() * 1.0037 for key, value in load_file(tiny(model)).items()}, path / "wide.safetensors")
    return path / "wide.safetensors"


def same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("strength", [1.0, 0.6])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("model", MODELS)
def test_is_bitwise_the_official_merge(model: str, dtype: torch.dtype, strength: float) -> None:
    version = require("1.0.0", "1.2.0")
    numerics = PRESETS[f"official-{version}"]()
    from ltx_core.loader.sd_ops import LTXV_LORA_COMFY_RENAMING_MAP
    from ltx_core.loader.single_gpu_model_builder import SingleGPUModelBuilder
    from ltx_core.model.transformer import LTXV_MODEL_COMFY_RENAMING_MAP, LTXModelConfigurator

    builder = SingleGPUModelBuilder(
        model_path=str(official_file.cached(model)),
        model_class_configurator=LTXModelConfigurator,
        model_sd_ops=LTXV_MODEL_COMFY_RENAMING_MAP,
    )
    built = builder.lora(str(tiny(model)), strength, LTXV_LORA_COMFY_RENAMING_MAP).build(device=CPU, dtype=dtype)
    root = "model.diffusion_model."
    theirs = {mapping.diffusers_name(root + key)[1]: value for key, value in built.state_dict().items()}
    assert same(lora.merged(engine_dit(model, dtype), lora.read(tiny(model)), strength, numerics).state_dict(), theirs)


@pytest.mark.parametrize("strength", [1.0, 0.6])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["bf16-file", "fp32-file"])
def test_is_bitwise_what_diffusers_fuses(kind: str, dtype: torch.dtype, strength: float, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    model = "ltx-2.3"
    path = tiny(model) if kind == "bf16-file" else wide(model, tmp_path)
    pipeline = load(cached(model), {torch.float32: "fp32", torch.bfloat16: "bf16"}[dtype], "cpu")
    pipeline.load_lora_weights(str(path))
    pipeline.fuse_lora(components=["transformer"], lora_scale=strength)
    pipeline.unload_lora_weights()
    ours = lora.merged(engine_dit(model, dtype), lora.read(path), strength, FP32_DELTA).state_dict()
    assert same(ours, pipeline.transformer.state_dict())


def exact(factors: lora.Factors, weight: torch.Tensor, strength: float, rounded: Callable[..., Any]) -> torch.Tensor:
    """From products in float64; ``rounded`` is applied where the merge rounds B*strength."""
    product = rounded(factors.b_OR.double() * strength).double() @ factors.a_RI.double()
    return (weight.double() + product.to(weight.dtype).double()).to(weight.dtype)


@pytest.mark.parametrize("model", MODELS)
def test_roundings_against_float64(model: str) -> None:
    """Any other rounding changes some percent of the numbers in bfloat16."""
    found = lora.read(tiny(model))
    base = engine_dit(model, torch.bfloat16).state_dict()
    once = lora.merged(engine_dit(model, torch.bfloat16), found, 0.6, FP32_DELTA).state_dict()
    twice = lora.merged(engine_dit(model, torch.bfloat16), found, 0.6, OFFICIAL).state_dict()
    differs = {"once": 0.0, "twice": 0.0, "both": 0.0}
    for layer, factors in found.layers["transformer"].items():
        key = f"{layer}.weight"
        differs["once"] += float((once[key] != exact(factors, base[key], 0.6, torch.clone)).double().mean())
        differs["twice"] += float((twice[key] != exact(factors, base[key], 0.6, torch.Tensor.bfloat16)).double().mean())
        differs["both"] += float((once[key] != twice[key]).double().mean())
    count = len(found.layers["transformer"])
    assert differs["once"] / count < 1e-3
    assert differs["twice"] / count < 1e-3
    assert differs["both"] / count > 0.02


@pytest.mark.parametrize("dtype", DTYPES)
def test_bfloat16_rounds_factors_product_and_sum(dtype: torch.dtype, tmp_path: Path) -> None:
    numerics = replace(OFFICIAL, lora_delta_dtype="bfloat16")
    base = engine_dit("ltx-2.3", dtype)
    name = "transformer_blocks.0.attn1.to_q"
    weight = base.get_submodule(name).weight
    for path, rounds in ((tiny(), False), (wide("ltx-2.3", tmp_path), True)):
        factors = lora.read(path).layers["transformer"][name]
        b, a = (factor.bfloat16() for factor in (factors.b_OR, factors.a_RI))
        expected = (weight.bfloat16() + (b * 0.6) @ a).to(dtype)
        found = lora.merged(base, lora.read(path), 0.6, numerics).get_submodule(name).weight
        assert torch.equal(found, expected)
        old = lora.merged(base, lora.read(path), 0.6, OFFICIAL).get_submodule(name).weight
        assert torch.equal(found, old) == (dtype == torch.bfloat16 and not rounds)


def test_a_float32_model_gets_the_rounding_of_its_reference() -> None:
    """Official: the product is rounded to the dtype of the file. peft: nothing is rounded."""
    found, base = lora.read(tiny()), engine_dit("ltx-2.3", torch.float32)
    factors = found.layers["transformer"]["transformer_blocks.0.attn1.to_q"]
    weight = base.transformer_blocks[0].attn1.to_q.weight
    rounded, plain = (lora.delta(factors, 1.0, weight, numerics) for numerics in (OFFICIAL, FP32_DELTA))
    product = factors.b_OR.double() @ factors.a_RI.double()
    assert rounded.dtype == plain.dtype == torch.float32
    assert torch.equal(rounded, rounded.bfloat16().float())
    assert torch.allclose(plain.double(), product, rtol=1e-6, atol=1e-9)
    assert not torch.allclose(rounded.double(), product, rtol=1e-6, atol=1e-9)


def test_wider_factors_take_the_dtype_of_the_weight_first(tmp_path: Path) -> None:
    factors = lora.read(wide("ltx-2.3", tmp_path)).layers["transformer"]["transformer_blocks.0.attn1.to_q"]
    narrow = lora.Factors(a_RI=factors.a_RI.bfloat16(), b_OR=factors.b_OR.bfloat16())
    weight = engine_dit("ltx-2.3", torch.bfloat16).transformer_blocks[0].attn1.to_q.weight
    one, other = (lora.delta(given, 0.6, weight, FP32_DELTA) for given in (factors, narrow))
    assert torch.equal(one, other)
    assert not torch.equal(lora.delta(factors, 0.6, weight, OFFICIAL), one)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("model", MODELS)
def test_the_tiny_lora_moves_the_output(model: str, dtype: torch.dtype) -> None:
    base, found, inputs = engine_dit(model, dtype), lora.read(tiny(model)), dit_inputs(model, dtype)
    before = base(inputs, OFFICIAL)
    previous = 0.0
    for strength in (0.5, 1.0):
        after = lora.merged(base, found, strength, OFFICIAL)(inputs, OFFICIAL)
        for one, other in zip(before, after, strict=True):
            distance = float((one.double() - other.double()).norm() / one.double().norm())
            assert 0.05 < distance < 0.3
            assert distance > previous
        previous = 0.15
    assert all(torch.equal(one, other) for one, other in zip(before, base(inputs, OFFICIAL), strict=True))


def test_the_base_stays_and_shares_what_is_not_touched() -> None:
    base, found = engine_dit("ltx-2.3", torch.bfloat16), lora.read(tiny())
    kept = {key: value.clone() for key, value in base.state_dict().items()}
    first, second = (lora.merged(base, found, strength, OFFICIAL) for strength in (0.25, 1.0))
    assert same(base.state_dict(), kept)
    touched = {f"{layer}.weight" for layer in found.layers["transformer"]}
    assert len(touched) == 84
    for key, value in second.state_dict().items():
        assert (value.data_ptr() == base.state_dict()[key].data_ptr()) == (key not in touched), key
        assert torch.equal(value, kept[key]) == (key not in touched), key
        assert torch.equal(value, first.state_dict()[key]) == (key not in touched), key
    assert second.config == base.config
    assert not second.training
    assert not any(parameter.requires_grad for parameter in second.parameters())


def test_names_of_the_diffusers_layout(tmp_path: Path) -> None:
    renamed: State = {}
    for key, tensor in load_file(tiny()).items():
        layer, _, tail = key.partition(".lora_")
        renamed[f"transformer.{mapping.diffusers_name(f'model.{layer}.weight')[1][:-7]}.lora_{tail}"] = tensor
    save_file(renamed, tmp_path / "renamed.safetensors")
    one, other = lora.read(tiny()).layers, lora.read(tmp_path / "renamed.safetensors").layers
    assert one.keys() == other.keys() == {"transformer"}
    assert one["transformer"].keys() == other["transformer"].keys()


def test_names_that_the_layouts_do_not_share(tmp_path: Path) -> None:
    factors = load_file(tiny())[A], load_file(tiny())[B]
    for official in (
        "diffusion_model.av_ca_a2v_gate_adaln_single.linear",
        "diffusion_model.audio_embeddings_connector.transformer_1d_blocks.1.attn1.to_out.0",
        "text_embedding_projection.video_aggregate_embed",
    ):
        save_file(
            {f"{official}.lora_{side}.weight": tensor for side, tensor in zip("AB", factors, strict=True)},
            tmp_path / "one.safetensors",
        )
        ((component, layers),) = lora.read(tmp_path / "one.safetensors").layers.items()
        expected = {
            "av_cross_attn_video_a2v_gate.linear": "transformer",
            "audio_connector.transformer_blocks.1.attn1.to_out.0": "connectors",
            "video_text_proj_in": "connectors",
        }
        assert expected[next(iter(layers))] == component


def refused(path: Path, match: str) -> None:
    with pytest.raises(InputError, match=match) as caught:
        lora.read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


FOREIGN = torch.zeros(4, 128, dtype=torch.bfloat16)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"lora_unet_down_blocks_0.lora_down.weight": FOREIGN}, "'lora_unet_down.*' is not known; expected diffusion_"),
        ({"diffusion_model.double_blocks.0.q.lora_A.weight": FOREIGN}, "'diffusion_model.double_.*' is not known"),
        ({f"{LAYER}.alpha": torch.tensor(4.0)}, r"to_q\.alpha' is not known"),
        ({f"{LAYER}.lora_A.bias": FOREIGN}, r"to_q\.lora_A\.bias' is not known"),
        ({B: None}, r"to_q\.lora_A\.weight' has no lora_B\.weight"),
        ({A: None}, r"to_q\.lora_B\.weight' has no lora_A\.weight"),
        ({A: FOREIGN.half()}, r"to_q\.lora_A\.weight': 'dtype' is torch\.float16; expected one of"),
        ({A: FOREIGN.float()}, r"to_q\.lora_B\.weight': 'dtype' is torch\.bfloat16; .* the same for both"),
        ({A: FOREIGN[:3]}, r"of shape \(3, 128\) and B of \(\d+, 4\) have no common rank"),
        ({A: FOREIGN[:, None]}, r"of shape \(4, 1, 128\) and B of"),
        (
            {
                "transformer.transformer_blocks.0.attn1.to_q.lora_A.weight": FOREIGN,
                "transformer.transformer_blocks.0.attn1.to_q.lora_B.weight": FOREIGN,
            },
            "are of one layer",
        ),
    ],
)
def test_files_that_are_refused(changes: dict[str, torch.Tensor | None], match: str, tmp_path: Path) -> None:
    refused(write(tmp_path, changes), match)


def test_files_that_are_no_safetensors(tmp_path: Path) -> None:
    refused(tmp_path / "absent.safetensors", "cannot be read as safetensors: No such file")
    (tmp_path / "short.safetensors").write_bytes(tiny().read_bytes()[:-100])
    refused(tmp_path / "short.safetensors", "cannot be read as safetensors: .*incomplete")
    torch.save(load_file(tiny()), tmp_path / "pickled.pt")
    refused(tmp_path / "pickled.pt", "cannot be read as safetensors")
    save_file({}, tmp_path / "empty.safetensors")
    refused(tmp_path / "empty.safetensors", "no tensors; expected a LoRA")


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({"transformer.r": 4, "transformer.lora_alpha": 8}, r"'transformer\.lora_alpha' is 8; expected the rank, 4"),
        ({"transformer.alpha_pattern": {"proj_in": 2}, "transformer.rank_pattern": {}}, "alpha_pattern' is "),
        ({"transformer.use_dora": True}, r"'transformer\.use_dora' is True; expected false"),
        ([1], "'lora_adapter_metadata' is no JSON object"),
    ],
)
def test_scales_outside_the_factors_are_refused(config: Any, match: str, tmp_path: Path) -> None:
    refused(write(tmp_path, metadata={"lora_adapter_metadata": json.dumps(config)}), match)


def test_a_scale_of_one_is_read(tmp_path: Path) -> None:
    config = {"transformer.r": 4, "transformer.lora_alpha": 4, "transformer.use_dora": False}
    patterns = {"transformer.alpha_pattern": {"proj_in": 2}, "transformer.rank_pattern": {"proj_in": 2}}
    path = write(tmp_path, metadata={"lora_adapter_metadata": json.dumps(config | patterns)})
    assert len(lora.read(path).layers["transformer"]) == 84


def test_a_lora_of_another_model_is_refused(tmp_path: Path) -> None:
    base = engine_dit("ltx-2", torch.bfloat16)
    head = "diffusion_model.prompt_adaln_single.linear"
    foreign = {f"{head}.lora_A.weight": FOREIGN, f"{head}.lora_B.weight": FOREIGN.T.contiguous()}
    path = write(tmp_path, foreign)
    with pytest.raises(InputError, match=r"layer 'prompt_adaln\.linear' is not in LTX2Transformer; expected a LoRA of"):
        lora.merged(base, lora.read(path), 1.0, OFFICIAL)
    path = write(tmp_path, {A: torch.zeros(4, 96, dtype=torch.bfloat16)})
    with pytest.raises(InputError, match=r"layer 'transformer_blocks\.0\.attn1\.to_q' is of shape .*96\); expected \("):
        lora.merged(base, lora.read(path), 1.0, OFFICIAL)
    with pytest.raises(InputError, match="connectors: no layer; expected a LoRA of it"):
        lora.merged(base, lora.read(tiny("ltx-2")), 1.0, OFFICIAL, component="connectors")


def test_connectors_are_merged_by_name(tmp_path: Path) -> None:
    base = engine_connectors("ltx-2.3", torch.float32)
    outputs, inputs = base.video_text_proj_in.weight.shape
    a, b = torch.ones(1, inputs), torch.full((outputs, 1), 0.5)
    root = "text_embedding_projection.video_aggregate_embed"
    save_file({f"{root}.lora_A.weight": a, f"{root}.lora_B.weight": b}, tmp_path / "c.safetensors")
    after = lora.merged(base, lora.read(tmp_path / "c.safetensors"), 2.0, DIFFUSERS, component="connectors")
    assert torch.equal(after.video_text_proj_in.weight, base.video_text_proj_in.weight + 1)


def test_a_lora_of_another_model_is_refused_by_its_header() -> None:
    path = checkpoint.distilled_lora(cached("ltx-2.3"))
    shapes = {name: tuple(value.shape) for name, value in engine_dit("ltx-2.3", torch.float32).state_dict().items()}
    lora.check(path, shapes)
    layer = "transformer_blocks.0.attn1.to_q"
    with pytest.raises(InputError, match=f"layer '{layer}' is not in the transformer; expected a LoRA of this model"):
        lora.check(path, {name: shape for name, shape in shapes.items() if name != f"{layer}.weight"})
    with pytest.raises(
        InputError, match=r"lora_A.weight' is of shape \(4, 128\); expected one for a weight of \(128, 64\)"
    ):
        lora.check(path, shapes | {f"{layer}.weight": (128, 64)})


def test_preparing_a_run_refuses_it(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(cached("ltx-2.3"), folder)
    path = checkpoint.distilled_lora(folder)
    factors = load_file(path)
    save_file({key.replace("blocks.0.", "blocks.7."): value for key, value in factors.items()}, path)
    with pytest.raises(InputError, match=r"layer 'transformer_blocks\.7\.attn1\.to_k' is not in the transformer"):
        check_lora(folder)
