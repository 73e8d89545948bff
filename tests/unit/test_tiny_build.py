"""The tiny checkpoints: deterministic, nowhere trivial, loadable, cached once."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from conformance import checkpoint
from conformance.errors import InputError
from reference_impl.diffusers_load import DTYPES, load
from reference_impl.tiny import build, fill, lora, text_encoder, tokenizer

MODELS = build.MODELS


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("tiny")
    for model in MODELS:
        build.build(model, root / model)
    return {model: root / model for model in MODELS}


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {
        f"{path.parent.name}/{name}": tensor
        for path in sorted(folder.rglob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }


@pytest.mark.parametrize("model", MODELS)
def test_two_builds_are_equal_and_leave_the_random_state_alone(
    model: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    torch.manual_seed(1234)
    state = torch.random.get_rng_state()
    build.build(model, tmp_path / "again")
    assert torch.equal(torch.random.get_rng_state(), state)
    assert checkpoint.digests(tmp_path / "again") == checkpoint.digests(folders[model])
    assert (tmp_path / "again" / lora.FILE).read_bytes() == (folders[model] / lora.FILE).read_bytes()


@pytest.mark.parametrize("model", MODELS)
def test_a_distilled_lora_lies_beside_the_components(model: str, folders: dict[str, Path], tmp_path: Path) -> None:
    factors = load_file(folders[model] / lora.FILE)
    # 3 blocks of 6 attentions with 4 layers and 2 feed-forwards with 2
    assert len(factors) == 3 * (6 * 4 + 2 * 2) * 2
    weights = load_file(folders[model] / "transformer" / "diffusion_pytorch_model.safetensors")
    for key, factor in factors.items():
        layer = key.removeprefix("diffusion_model.")
        assert layer != key
        weight = weights[layer.replace(".lora_A", "").replace(".lora_B", "")]
        expected = (lora.RANK, weight.shape[1]) if ".lora_A." in key else (weight.shape[0], lora.RANK)
        assert tuple(factor.shape) == expected, key
        assert factor.dtype == torch.bfloat16
    other = load_file(folders[next(name for name in MODELS if name != model)] / lora.FILE)
    assert not any(torch.equal(factors[key], other[key]) for key in factors)
    without = shutil.copytree(folders[model], tmp_path / "without", ignore=lambda *_: {lora.FILE})
    assert checkpoint.digests(tmp_path / "without") == checkpoint.digests(folders[model])
    assert not (without / lora.FILE).exists()


@pytest.mark.parametrize("model", MODELS)
def test_has_an_upsampler_beside_the_pipeline(model: str, folders: dict[str, Path]) -> None:
    names = [name for name in tensors(folders[model]) if name.startswith("latent_upsampler/")]
    assert any("blur_down.kernel" in name for name in names) == (model == "ltx-2")
    assert "latent_upsampler" not in (folders[model] / checkpoint.INDEX).read_text()


def test_models_share_no_weights(folders: dict[str, Path]) -> None:
    one, other = (checkpoint.digests(folders[model]) for model in MODELS)
    assert {name for name in one if one[name] == other[name]} == {"tokenizer", "scheduler"}


@pytest.mark.parametrize("model", MODELS)
def test_every_tensor_is_bf16_finite_and_varies(model: str, folders: dict[str, Path]) -> None:
    found = tensors(folders[model])
    assert len(found) > 300
    for name, tensor in found.items():
        assert tensor.dtype == torch.bfloat16, name
        assert torch.isfinite(tensor).all(), name
        assert tensor.double().std() > 1e-3 * tensor.double().abs().max() > 0, name


@pytest.mark.parametrize("model", MODELS)
def test_values_follow_their_rule(model: str, folders: dict[str, Path]) -> None:
    found = {name: tensor.double() for name, tensor in tensors(folders[model]).items()}

    def spread(suffix: str) -> float:
        return float(torch.cat([value.flatten() for name, value in found.items() if name.endswith(suffix)]).std())

    def mean(suffix: str) -> float:
        return float(torch.cat([value.flatten() for name, value in found.items() if name.endswith(suffix)]).mean())

    assert spread("attn1.to_q.bias") == pytest.approx(0.1, rel=0.1)
    assert spread("attn1.norm_q.weight") == pytest.approx(0.1, rel=0.1)
    assert mean("attn1.norm_q.weight") == pytest.approx(1.0, abs=0.05)
    assert spread("transformer/scale_shift_table") == pytest.approx(0.3, rel=0.2)
    assert mean("input_layernorm.weight") == pytest.approx(0.0, abs=0.05)  # Gemma3 adds the 1
    query = found["transformer/transformer_blocks.0.attn1.to_q.weight"]
    assert float(query.std()) * query.shape[1] ** 0.5 == pytest.approx(1.0, rel=0.05)
    registers = found["connectors/video_connector.learnable_registers"]
    assert -1.0 <= registers.min() < -0.95
    assert 0.95 < registers.max() <= 1.0
    assert found["vae/latents_std"].min() > 0.5
    assert found["audio_vae/latents_mean"].shape == (128,)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("model", MODELS)
def test_loads_strictly_with_the_stored_values(model: str, dtype: str, folders: dict[str, Path]) -> None:
    pipeline = load(folders[model], dtype, "cpu")
    stored = tensors(folders[model])
    for name in ("transformer", "connectors", "vae", "audio_vae", "vocoder"):
        state = getattr(pipeline, name).state_dict()
        assert {f"{name}/{key}" for key in state} == {key for key in stored if key.startswith(f"{name}/")}
        for key, value in state.items():
            assert value.dtype == DTYPES[dtype]
            assert torch.equal(value, stored[f"{name}/{key}"].to(value.dtype)), key
    language = pipeline.text_encoder.model.language_model
    key = next(key for key in stored if key.startswith("text_encoder/") and key.endswith("embed_tokens.weight"))
    assert torch.equal(language.embed_tokens.weight, stored[key].to(DTYPES[dtype]))
    assert set(language.config.layer_types) == {"sliding_attention", "full_attention"}
    assert language.config.num_hidden_layers == text_encoder.LAYERS


def test_tokenizer_pads_left_and_knows_its_unknowns(folders: dict[str, Path]) -> None:
    loaded = load(folders["ltx-2"], "fp32", "cpu").tokenizer
    for tokens in (loaded, tokenizer.build()):
        batch = tokens(["ab", "\u65e5\n"], padding="max_length", max_length=6, truncation=True)
        pad, bos, unknown = (tokenizer.SPECIAL.index(token) for token in ("<pad>", "<bos>", "<unk>"))
        a, b, newline = (4 + tokenizer.CHARACTERS.index(character) for character in "ab\n")
        assert batch["input_ids"] == [[pad, pad, pad, bos, a, b], [pad, pad, pad, bos, unknown, newline]]
        assert batch["attention_mask"] == [[0, 0, 0, 1, 1, 1]] * 2
    assert 4 + len(tokenizer.CHARACTERS) <= tokenizer.VOCABULARY - 3  # three ids are for images


def test_random_numbers_are_normal_exact_and_named() -> None:
    drawn = fill.normal("a", (400, 500), 2.0, mean=1.0).double()
    assert float(drawn.mean()) == pytest.approx(1.0, abs=0.02)
    assert float(drawn.std()) == pytest.approx(2.0, rel=0.01)
    assert float(((drawn - 1).abs() > 4).double().mean()) == pytest.approx(0.0455, abs=0.005)
    # the same from numpy's Mersenne Twister, in Python integers: no machine may come to other bits
    twister = np.random.RandomState(fill._generator("a").initial_seed() % 2**32)
    words = [[int(word) for word in twister.randint(0, 2**32, 2, dtype=np.uint64)] for _ in range(4)]
    sums = [sum((((high << 32 | low) % (2**64 - 1) + 2**63) % 2**64).to_bytes(8, "little")) for high, low in words]
    exact = torch.tensor([(total - 1020.0) / math.sqrt(8 * 65535 / 12) for total in sums], dtype=torch.float64)
    assert torch.equal(fill.normal("a", (4,), 1.0), exact.bfloat16())
    assert not torch.equal(fill.normal("b", (4,), 1.0), fill.normal("a", (4,), 1.0))


def test_fill_refuses_what_it_has_no_rule_for() -> None:
    odd = torch.nn.Module()
    odd.register_parameter("strange", torch.nn.Parameter(torch.zeros(2)))
    with pytest.raises(ValueError, match=r"no rule fills 'x/\.strange'"):
        fill.fill(odd, "x")
    with pytest.raises(ValueError, match="no module is called 'elsewhere'"):
        fill.fill(torch.nn.Linear(2, 2), "x", gains={"elsewhere": 1.0})


def test_cached_builds_once_and_names_the_content_of_the_builder(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONFORMANCE_CACHE", str(tmp_path))
    built: list[str] = []

    def fake(model: str, folder: Path) -> None:
        built.append(model)
        shutil.copytree(folders[model], folder, dirs_exist_ok=True)

    monkeypatch.setattr(build, "build", fake)
    first = build.cached("ltx-2")
    assert first == tmp_path / "tiny" / f"ltx-2-{build.source_digest()[:12]}"
    assert build.cached("ltx-2") == first
    assert built == ["ltx-2"]
    monkeypatch.setattr(build, "version", lambda package: "0.0.0")
    assert build.cached("ltx-2") != first
    assert built == ["ltx-2", "ltx-2"]
    assert sorted(path.name[:5] for path in (tmp_path / "tiny").iterdir()) == ["ltx-2", "ltx-2"]
    (first / "vae" / "config.json").unlink()
    monkeypatch.undo()
    monkeypatch.setenv("CONFORMANCE_CACHE", str(tmp_path))
    with pytest.raises(InputError, match=r"vae/config\.json: file is missing"):
        build.cached("ltx-2")


def test_cached_keeps_the_winner_of_a_race_and_nothing_of_a_failure(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONFORMANCE_CACHE", str(tmp_path))
    target = tmp_path / "tiny" / f"ltx-2-{build.source_digest()[:12]}"

    def crash(model: str, folder: Path) -> None:
        (folder / "half").write_text("written")
        raise OSError("disk full")

    monkeypatch.setattr(build, "build", crash)
    with pytest.raises(OSError, match="disk full"):
        build.cached("ltx-2")
    assert list((tmp_path / "tiny").iterdir()) == []

    def lose(model: str, folder: Path) -> None:
        shutil.copytree(folders[model], folder, dirs_exist_ok=True)
        shutil.copytree(folders[model], target)
        (target / "winner").touch()

    monkeypatch.setattr(build, "build", lose)
    assert build.cached("ltx-2") == target
    assert (target / "winner").is_file()
    assert list((tmp_path / "tiny").iterdir()) == [target]


def test_unknown_model(tmp_path: Path) -> None:
    for call in (lambda: build.cached("ltx-3"), lambda: build.build("ltx-3", tmp_path)):
        with pytest.raises(InputError, match="'model' is 'ltx-3'; expected one of"):
            call()
