"""An official single file becomes the diffusers folder it was made of: content, cache, processes, memory."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from conformance import checkpoint, tensorfile, unpack
from conformance.errors import InputError
from engine.models.ltx2 import mapping
from reference_impl.tiny import official_file
from reference_impl.tiny.build import MODELS, cached

ROOT = Path(__file__).parents[2]
FILE = "diffusion_pytorch_model.safetensors"


Sources = dict[str, tuple[Path, Path]]  # model -> diffusers folder and official file


@pytest.fixture(scope="module")
def sources() -> Sources:
    return {model: (cached(model), official_file.cached(model)) for model in MODELS}


@pytest.fixture(autouse=True)
def cache(sources: Sources, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache, the sources being in the usual one."""
    monkeypatch.setenv("CONFORMANCE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "unpacked"


def silent(place: str) -> None:
    pass


def unpacked(source: tuple[Path, Path], upsampler: Path | None = None) -> Path:
    folder, file = source
    return unpack.unpacked(file, folder, upsampler, None, silent)


@pytest.mark.parametrize("model", MODELS)
def test_the_round_trip_changes_no_digest(sources: Sources, model: str, tmp_path: Path) -> None:
    folder, _ = sources[model]
    official_file.write_upsampler(folder, tmp_path / "up.safetensors")
    expected = checkpoint.digests(folder, optional=("latent_upsampler",))
    for upsampler in (tmp_path / "up.safetensors", folder / "latent_upsampler"):
        found = checkpoint.digests(unpacked(sources[model], upsampler), optional=("latent_upsampler",))
        assert found == expected


def test_what_is_not_given_is_not_there(sources: Sources) -> None:
    folder = unpacked(sources["ltx-2.3"])
    assert not (folder / "latent_upsampler").exists()
    with pytest.raises(InputError, match="no distilled LoRA"):
        checkpoint.distilled_lora(folder)


def test_weights_keep_their_dtype_bit_for_bit(sources: Sources, tmp_path: Path) -> None:
    """Also where a file mixes dtypes, and where statistics nobody reads are in it."""
    import torch

    folder, file = sources["ltx-2"]
    tensors = load_file(file)
    key = "model.diffusion_model.transformer_blocks.1.scale_shift_table"
    tensors[key] = tensors[key].float() * 1.0001
    tensors["vae.per_channel_statistics.mean-of-stds"] = torch.ones(128)
    _, metadata = tensorfile.read_header(file, "")
    save_file(tensors, tmp_path / "mixed.safetensors", metadata=metadata)
    got = unpack.unpacked(tmp_path / "mixed.safetensors", folder, None, None, silent)
    found = load_file(got / "transformer" / FILE)
    for name, tensor in found.items():
        wanted = tensors[mapping.official_name("transformer", name)]
        assert tensor.dtype == wanted.dtype
        assert tensor.equal(wanted)
    assert found["transformer_blocks.1.scale_shift_table"].dtype == torch.float32
    header, metadata = tensorfile.read_header(got / "transformer" / FILE, "")
    assert metadata == {"format": "pt"}  # transformers asks for it
    assert all(place.begin % 8 == 0 for place in header.values() if place.dtype == "F32")


def test_a_flat_text_encoder_of_shards_and_a_lora(sources: Sources, tmp_path: Path) -> None:
    folder, file = sources["ltx-2.3"]
    flat = tmp_path / "gemma"
    flat.mkdir()
    for part in ("text_encoder", "tokenizer"):
        for path in (folder / part).iterdir():
            if path.name != "model.safetensors":
                shutil.copy(path, flat)
    tensors = load_file(folder / "text_encoder" / "model.safetensors")
    shards = {name: f"model-0000{index % 2 + 1}-of-00002.safetensors" for index, name in enumerate(tensors)}
    for shard in set(shards.values()):
        save_file({name: tensors[name] for name in tensors if shards[name] == shard}, flat / shard)
    (flat / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    (flat / "README.md").write_text("not a part of either")
    lora = tmp_path / "adapter.safetensors"
    save_file({"diffusion_model.proj_out.lora_A.weight": next(iter(tensors.values()))[:2].clone()}, lora)
    got = unpack.unpacked(file, flat, None, lora, silent)
    assert checkpoint.digests(got) == checkpoint.digests(folder)
    assert checkpoint.distilled_lora(got).resolve() == lora
    assert not list(got.rglob("README.md"))
    assert not any(path.is_symlink() for path in got.glob("transformer/*"))
    assert all(path.is_symlink() for path in got.glob("text_encoder/*"))


def test_unpacked_once_and_again_when_a_source_changes(sources: Sources, cache: Path, tmp_path: Path) -> None:
    folder, official = sources["ltx-2"]
    file = shutil.copy(official, tmp_path / "file.safetensors")
    encoder = shutil.copytree(
        folder, tmp_path / "encoder", ignore=lambda path, names: {"transformer", "vae"} & {*names}
    )

    def again() -> Path:
        return unpack.unpacked(file, encoder, None, None, silent)

    first = again()
    stamp = (first / "transformer" / FILE).stat().st_mtime_ns
    assert again() == first
    assert (first / "transformer" / FILE).stat().st_mtime_ns == stamp
    os.utime(file, ns=(1, 1))
    second = again()
    assert second != first
    os.utime(encoder / "text_encoder" / "model.safetensors", ns=(1, 1))
    assert again() not in (first, second)
    assert [path for path in cache.iterdir() if path.name.startswith(".")] == []


def test_a_killed_process_leaves_nothing_behind(sources: Sources, cache: Path) -> None:
    first = unpacked(sources["ltx-2"])
    left = cache / f".{first.name}.abcd"
    shutil.copytree(first, left, symlinks=True)
    shutil.rmtree(first)
    other = cache / ".another.abcd"
    other.mkdir()
    assert unpacked(sources["ltx-2"]) == first
    assert not left.exists()
    assert other.exists()


_ASK = """
import sys
from pathlib import Path
from conformance import tensorfile, unpack
real = tensorfile.write
def counted(path, tensors, copied):
    print("wrote", path.parent.name, flush=True)
    real(path, tensors, copied)
tensorfile.write = counted
print("folder", unpack.unpacked(Path(sys.argv[1]), Path(sys.argv[2]), None, None, lambda place: None))
"""


@pytest.mark.slow
def test_processes_that_ask_at_once_unpack_once(sources: Sources) -> None:
    folder, file = sources["ltx-2"]
    command = [sys.executable, "-c", _ASK, str(file), str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    asking = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(3)]
    lines = [line for process in asking for line in process.communicate(timeout=100)[0].splitlines()]
    assert [process.returncode for process in asking] == [0, 0, 0]
    assert len({line for line in lines if line.startswith("folder")}) == 1
    assert sorted(line for line in lines if line.startswith("wrote")) == sorted(
        f"wrote {component}" for component in mapping.COMPONENTS
    )


def test_progress_and_room(sources: Sources, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    folder, file = sources["ltx-2"]
    usage = shutil._ntuple_diskusage  # type: ignore[attr-defined]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 9, 1))
    with pytest.raises(InputError, match=r"0\.0 GiB free, .* GiB to unpack there"):
        unpack.unpacked(file, folder, None, None, silent)
    assert [path for path in cache.iterdir() if path.is_dir()] == []
    monkeypatch.undo()
    monkeypatch.setenv("CONFORMANCE_CACHE", str(cache.parent))
    places: list[str] = []
    unpack.unpacked(file, folder, None, None, places.append)
    assert places[0].endswith("reading headers")
    assert [place.split()[-2] for place in places if place.startswith("unpacking")] == [*map(str, range(0, 101, 10))]


def test_tensors_lie_at_multiples_of_their_item_size(tmp_path: Path) -> None:
    import torch

    save_file({"b": torch.ones(3)}, tmp_path / "1.safetensors")
    save_file({"a": torch.ones(1, dtype=torch.bfloat16), "c": torch.ones(0)}, tmp_path / "2.safetensors")
    header = {}
    for name in "12":
        header |= tensorfile.read_header(tmp_path / f"{name}.safetensors", "")[0]
    tensorfile.write(tmp_path / "whole.safetensors", header)
    found, _ = tensorfile.read_header(tmp_path / "whole.safetensors", "")
    assert found["b"].begin % 4 == 0
    assert {name: tensor.shape for name, tensor in load_file(tmp_path / "whole.safetensors").items()} == {
        "a": (1,),
        "b": (3,),
        "c": (0,),
    }


def test_a_source_that_shrinks_while_it_is_read(sources: Sources, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"x": load_file(sources["ltx-2"][0] / "vae" / FILE)["latents_mean"]}, path)
    header, _ = tensorfile.read_header(path, "")
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(InputError, match="ended while tensor 'x' was read"):
        tensorfile.write(tmp_path / "b.safetensors", header)
