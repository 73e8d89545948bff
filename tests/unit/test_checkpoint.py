"""Damaged and re-arranged checkpoint folders, without any model code."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conformance import checkpoint
from conformance.errors import InputError
from conformance.matrix import all_cases

TENSORS: dict[str, tuple[str, list[int], bytes]] = {
    "a.weight": ("F32", [2, 2], bytes(range(16))),
    "b.bias": ("BF16", [3], bytes(range(6))),
}


def write(path: Path, tensors: dict[str, tuple[str, list[int], bytes]], metadata: dict[str, str] | None = None) -> None:
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    body = b""
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def patch_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "ckpt"
    for name, (configs, stem) in checkpoint.COMPONENTS.items():
        (root / name).mkdir(parents=True)
        for config in configs:
            (root / name / config).write_text(json.dumps({"_class_name": name, "width": 4}))
        if stem:
            write(root / name / f"{stem}.safetensors", TENSORS)
    (root / "model_index.json").write_text(json.dumps({key: ["lib", "Class"] for key in checkpoint.COMPONENTS}))
    return root


def weights(folder: Path) -> Path:
    return folder / "vae" / "diffusion_pytorch_model.safetensors"


def shard(folder: Path) -> Path:
    """Split the VAE's weights over two files; returns the index."""
    weights(folder).unlink()
    places = {"a.weight": "one.safetensors", "b.bias": "two.safetensors"}
    for name, file in places.items():
        write(folder / "vae" / file, {name: TENSORS[name]})
    index = folder / "vae" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 22}, "weight_map": places}))
    return index


def place(folder: Path, **places: str) -> None:
    index = shard(folder)
    index.write_text(json.dumps({"weight_map": json.loads(index.read_text())["weight_map"] | places}))


def cut(count: int) -> Callable[[Path], object]:
    return lambda folder: weights(folder).write_bytes(weights(folder).read_bytes()[:count])


def both(folder: Path) -> None:
    shard(folder)
    write(weights(folder), TENSORS)


def overlap(folder: Path) -> None:
    data = weights(folder).read_bytes()
    weights(folder).write_bytes(data.replace(b"[16, 22]", b"[10, 16]"))


def lose_shard(folder: Path) -> None:
    (shard(folder).parent / "two.safetensors").unlink()


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no index": (lambda f: (f / "model_index.json").unlink(), "model_index.json: file is missing"),
    "index lacks": (lambda f: (f / "model_index.json").write_text('{"vae": 1}'), "component 'transformer' is missing"),
    "no component": (lambda f: (f / "vae").rename(f / "vea"), "vae: component folder is missing"),
    "no config": (lambda f: (f / "vocoder/config.json").unlink(), "vocoder/config.json: file is missing"),
    "no tokenizer": (lambda f: (f / "tokenizer/tokenizer.json").unlink(), "tokenizer/tokenizer.json: file is missing"),
    "half JSON": (lambda f: (f / "vae/config.json").write_text('{"a": '), "vae/config.json: not valid JSON (line 1"),
    "JSON list": (lambda f: (f / "scheduler/scheduler_config.json").write_text("[]"), "expected a JSON object"),
    "no weights": (lambda f: weights(f).unlink(), "vae/diffusion_pytorch_model.safetensors: file is missing"),
    "pickle": (lambda f: weights(f).rename(f / "vae/pytorch_model.bin"), "pickled weights are refused"),
    "empty": (cut(0), "truncated: 0 bytes hold no complete safetensors header"),
    "half header": (cut(40), "truncated: 40 bytes hold no complete"),
    "one byte short": (cut(-1), "truncated: "),
    "one byte long": (lambda f: weights(f).write_bytes(weights(f).read_bytes() + b"x"), "trailing bytes"),
    "overlap": (overlap, "leaves a hole or overlaps"),
    "shape": (lambda f: write(weights(f), {"x": ("F32", [5], bytes(16))}), "16 bytes for shape [5] of dtype 'F32'"),
    "dtype": (lambda f: write(weights(f), {"x": ("F31", [4], bytes(16))}), "of dtype 'F31'"),
    "negative": (lambda f: write(weights(f), {"x": ("F32", [-2, -2], bytes(16))}), "expected integers of at least 0"),
    "header list": (lambda f: weights(f).write_bytes(struct.pack("<Q", 2) + b"[]"), "corrupt safetensors header"),
    "not UTF-8": (lambda f: weights(f).write_bytes(struct.pack("<Q", 2) + b"\xff\xff"), "corrupt safetensors header"),
    "single and shards": (both, "expected one of them"),
    "shard missing": (lose_shard, "vae/two.safetensors: file is miss"),
    "shard outside": (lambda f: place(f, x="../transformer/diffusion_pytorch_model.safetensors"), "of the same folder"),
    "shard absolute": (lambda f: place(f, x="/etc/passwd.safetensors"), "of the same folder"),
    "shard pickled": (lambda f: place(f, x="three.bin"), "'three.bin' is not a .safetensors file"),
    "shard lacks tensor": (lambda f: place(f, missing="one.safetensors"), "lacks tensor 'missing'"),
    "shard surplus": (lambda f: place(f, **{"a.weight": "two.safetensors"}), "vae/two.safetensors: lacks tensor"),
    "no weight map": (lambda f: shard(f).write_text("{}"), "'weight_map' is None"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_damage_is_one_line_that_names_folder_file_and_reason(folder: Path, name: str) -> None:
    damage, reason = BROKEN[name]
    checkpoint.verify(folder)  # whole before
    damage(folder)
    with pytest.raises(InputError) as caught:
        checkpoint.verify(folder)
    message = str(caught.value)
    assert reason in message
    assert message.startswith(str(folder))
    assert "\n" not in message
    with pytest.raises(InputError):
        checkpoint.digests(folder)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: checkpoint folder does not exist"):
        checkpoint.verify(tmp_path / "nowhere")


def test_layout_of_files_does_not_count(folder: Path) -> None:
    before = checkpoint.digests(folder)
    assert set(before) == {*checkpoint.COMPONENTS, "model_index"}
    write(weights(folder), dict(reversed(TENSORS.items())), metadata={"format": "pt"})
    assert checkpoint.digests(folder) == before
    shard(folder)
    assert checkpoint.digests(folder) == before
    config = folder / "vae" / "config.json"
    config.write_text(json.dumps({"_diffusers_version": "9", "_name_or_path": "/x", "width": 4, "_class_name": "vae"}))
    assert checkpoint.digests(folder) == before


def add_upsampler(folder: Path) -> Path:
    (folder / "latent_upsampler").mkdir()
    (folder / "latent_upsampler" / "config.json").write_text("{}")
    path = folder / "latent_upsampler" / "diffusion_pytorch_model.safetensors"
    write(path, TENSORS)
    return path


def test_optional_component_counts_where_it_is_asked_for(folder: Path) -> None:
    before = checkpoint.digests(folder)
    with pytest.raises(InputError, match="latent_upsampler: component folder is missing"):
        checkpoint.digests(folder, optional=("latent_upsampler",))
    path = add_upsampler(folder)
    assert checkpoint.digests(folder) == before
    first = checkpoint.digests(folder, optional=("latent_upsampler",))
    assert first == before | {"latent_upsampler": first["latent_upsampler"]}
    write(path, TENSORS | {"b.bias": ("BF16", [3], bytes((0, 1, 2, 3, 4, 7)))})
    assert checkpoint.digests(folder, optional=("latent_upsampler",))["latent_upsampler"] != first["latent_upsampler"]


def test_optional_component_is_verified_where_it_is(folder: Path) -> None:
    path = add_upsampler(folder)
    checkpoint.verify(folder)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"latent_upsampler/diffusion_pytorch_model\.safetensors: truncated"):
        checkpoint.verify(folder)


def add_lora(folder: Path, name: str = "ltx-2-19b-distilled-lora-384.safetensors") -> Path:
    write(folder / name, TENSORS)
    return folder / name


def test_the_distilled_lora_counts_where_it_is_asked_for(folder: Path) -> None:
    before = checkpoint.digests(folder)
    for call in (checkpoint.distilled_lora, lambda root: checkpoint.digests(root, optional=("distilled_lora",))):
        with pytest.raises(InputError, match=r"no distilled LoRA; expected one \*distilled-lora\*\.safetensors"):
            call(folder)
    path = add_lora(folder)
    assert checkpoint.distilled_lora(folder) == path
    assert checkpoint.digests(folder) == before
    first = checkpoint.digests(folder, optional=("distilled_lora",))
    assert first == before | {"distilled_lora": first["distilled_lora"]}
    path.rename(folder / "distilled-lora.safetensors")  # its name does not count
    assert checkpoint.digests(folder, optional=("distilled_lora",)) == first
    write(folder / "distilled-lora.safetensors", {"a": TENSORS["a.weight"], "b.bias": TENSORS["b.bias"]})
    assert checkpoint.digests(folder, optional=("distilled_lora",)) != first


def test_several_loras_are_named_where_one_is_needed(folder: Path) -> None:
    for name in ("x-distilled-lora-384.safetensors", "x-distilled-lora-384-1.1.safetensors"):
        add_lora(folder, name)
    checkpoint.verify(folder)
    match = (
        r"2 distilled LoRAs \(x-distilled-lora-384-1\.1\.safetensors, x-distilled-lora-384\.safetensors\); expected one"
    )
    for call in (checkpoint.distilled_lora, lambda root: checkpoint.digests(root, optional=("distilled_lora",))):
        with pytest.raises(InputError, match=match):
            call(folder)


def test_a_lora_is_verified_where_it_is(folder: Path) -> None:
    path = add_lora(folder)
    checkpoint.verify(folder)
    path.write_bytes(path.read_bytes()[:-1])
    for call in (checkpoint.verify, checkpoint.distilled_lora, checkpoint.digests):
        with pytest.raises(InputError, match=r"distilled-lora-384\.safetensors: truncated"):
            call(folder)
    path.rename(path.with_suffix(".bin"))
    for call in (checkpoint.verify, checkpoint.distilled_lora):
        with pytest.raises(InputError, match=r"distilled-lora-384\.bin: pickled weights are refused"):
            call(folder)
    path.with_suffix(".bin").rename(folder / "distilled-lora.md")
    checkpoint.verify(folder)


def changed(**tensors: tuple[str, list[int], bytes]) -> Callable[[Path], None]:
    return lambda folder: write(weights(folder), {**TENSORS, **tensors})


CHANGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a bit": ("vae", changed(**{"b.bias": ("BF16", [3], bytes((0, 1, 2, 3, 4, 7)))})),
    "a shape": ("vae", changed(**{"a.weight": ("F32", [4, 1], TENSORS["a.weight"][2])})),
    "a dtype": ("vae", changed(**{"a.weight": ("I32", [2, 2], TENSORS["a.weight"][2])})),
    "one more": ("vae", changed(**{"c": ("F32", [0], b"")})),
    "a config": ("vae", lambda f: patch_json(f / "vae/config.json", width=5)),
    "the class": ("vae", lambda f: patch_json(f / "vae/config.json", _class_name="other")),
    "a tokenizer file": ("tokenizer", lambda f: (f / "tokenizer/chat_template.jinja").write_text("hello")),
    "the index": ("model_index", lambda f: patch_json(f / "model_index.json", vae=["lib", "Other"])),
}


@pytest.mark.parametrize("name", CHANGES)
def test_content_counts_for_its_component_alone(folder: Path, name: str) -> None:
    component, change = CHANGES[name]
    before, whole = checkpoint.digests(folder), checkpoint.digest(folder)
    change(folder)
    after = checkpoint.digests(folder)
    assert {key for key in before if before[key] != after[key]} == {component}
    assert checkpoint.digest(folder) != whole


def test_digests_are_computed_once_while_files_stay(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    real = checkpoint._component_digest

    def counted(folder: Path, name: str) -> str:
        calls.append(name)
        return real(folder, name)

    monkeypatch.setattr(checkpoint, "_component_digest", counted)
    first = checkpoint.digests(folder)
    first["vae"] = "spoiled by the caller"
    assert checkpoint.digests(folder)["vae"] != first["vae"]
    assert len(calls) == len(checkpoint.COMPONENTS)
    patch_json(folder / "vae" / "config.json", width=5)
    checkpoint.digests(folder)
    assert len(calls) == 2 * len(checkpoint.COMPONENTS)


def test_a_large_checkpoint_is_hashed_once_a_machine(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONFORMANCE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(checkpoint, "KEPT_FROM", 0)
    expected = checkpoint.digests(folder)
    checkpoint._cache.clear()  # another process
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_digests", lambda *_: pytest.fail("hashed again"))
        assert checkpoint.digests(folder) == expected
    checkpoint._cache.clear()
    config = folder / "vae" / "config.json"
    config.write_text(config.read_text().replace("{", '{"other": 1,', 1))
    assert checkpoint.digests(folder)["vae"] != expected["vae"]


def test_everything_that_is_there_identifies_a_checkpoint(folder: Path) -> None:
    seen = [checkpoint.digest(folder)]
    for add in (add_upsampler, add_lora):
        add(folder)
        seen.append(checkpoint.digest(folder))
    assert len(set(seen)) == 3


def test_what_a_request_needs() -> None:
    cases = {case.id.split("@")[0]: case.request for case in all_cases()}
    assert checkpoint.needed(cases["ltx-2/one-stage-t2v/cfg"]) == ()
    request = cases["ltx-2/two-stage-t2v/cfg"]
    assert checkpoint.needed(request) == ("latent_upsampler", "distilled_lora")
    assert request.second is not None
    plain = replace(request, second=replace(request.second, lora_first=0.0, lora_second=0.0))
    assert checkpoint.needed(plain) == ("latent_upsampler",)
