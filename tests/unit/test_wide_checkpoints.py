"""Weights of released widths are in memory once: loading them from either layout, and unpacking a file of gigabytes.

One transformer block, one layer a connector, a feature extractor over three text layers: about 2 GB.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import wide

from engine.models.ltx2 import mapping
from reference_impl.official.config import official_config
from reference_impl.tiny.build import MODELS, cached

ROOT = Path(__file__).parents[2]
FILE = "diffusion_pytorch_model.safetensors"
SLACK = 1.15
# VmHWM, not ru_maxrss, which also knows the process this one was forked from; writing 5 starts it anew
_PROGRAM = """
import gc, json, sys
from functools import partial
from pathlib import Path

import torch

from conformance import unpack
from engine.models.ltx2 import weights
from engine.models.ltx2.config import ConnectorsConfig, TransformerConfig
from engine.models.ltx2.connectors import LTX2Connectors
from engine.models.ltx2.transformer import LTX2Transformer

torch.set_num_threads(1)
MODELS = {"transformer": (TransformerConfig, LTX2Transformer), "connectors": (ConnectorsConfig, LTX2Connectors)}


def memory(name):
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0]) * 1024


def peak(function):
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    result = function()
    return result, memory("VmHWM") - before


folder, file, text = Path(sys.argv[1]), *sys.argv[2:4]
found, kept = {}, []
if file:
    def ask():
        return unpack.unpacked(Path(file), Path(text), None, None, lambda place: None)
    folder, found["unpack"] = peak(ask)
for name, (config, module) in MODELS.items():
    def load():
        build = partial(module, config.load(folder / name))
        return weights.load(build, folder / name, torch.bfloat16, torch.device("cpu"))
    loaded, found[name] = peak(load)
    state = loaded.state_dict()
    key = sorted(state)[-1]
    found[f"{name} bits"] = [key, state[key].flatten().view(torch.int16)[:64].tolist()]
    kept.append(loaded)  # what is freed would serve the next
print(json.dumps(found))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "wide"
    shutil.rmtree(tmp_path)  # gigabytes, and pytest keeps the last runs


def _run(folder: Path, file: Path | None = None, text: Path | None = None) -> dict[str, int]:
    command = [sys.executable, "-c", _PROGRAM, str(folder), str(file or ""), str(text or "")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CONFORMANCE_CACHE": str(folder.parent / "cache")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _stored(path: Path, key: str) -> list[int]:
    import torch
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return file.get_tensor(key).flatten().view(torch.int16)[:64].tolist()


@pytest.mark.slow
@pytest.mark.timeout(600)  # gigabytes, on a disk that may be busy
@pytest.mark.parametrize("model", MODELS)
def test_a_folder(model: str, folder: Path) -> None:
    wide.write_configs(model, folder)
    sizes = {name: wide.write_weights(folder / name / FILE, shapes) for name, shapes in wide.shapes(folder).items()}
    assert sum(sizes.values()) > 1.5e9
    found = _run(folder)
    for name, size in sizes.items():
        assert 0.95 * size <= found[name] <= SLACK * size, (name, size, found[name])
        key, bits = found[f"{name} bits"]  # type: ignore[misc]
        assert bits == _stored(folder / name / FILE, key)


@pytest.mark.slow
@pytest.mark.timeout(600)  # gigabytes, on a disk that may be busy
@pytest.mark.parametrize("model", MODELS)
def test_an_official_file(model: str, folder: Path) -> None:
    wide.write_configs(model, folder)
    shapes = wide.shapes(folder)
    for name in ("vae", "audio_vae", "vocoder"):
        shutil.copytree(cached(model) / name, folder / name)
        shapes[name] = wide.stored_shapes(folder / name / FILE)
    metadata = {"config": json.dumps(official_config(folder)), "model_version": "2"}
    file = folder / "official.safetensors"
    wide.write_weights(file, mapping.to_official(shapes), metadata)
    wide.write_text_encoder(folder / "gemma", width=3840, layers=2, tokenizer=cached(model) / "tokenizer")
    found = _run(folder, file, folder / "gemma")
    sizes = {name: sum(map(wide.size, shapes[name].values())) for name in shapes}
    assert found["unpack"] < 100e6 < 0.1 * max(sizes.values())
    for name in ("transformer", "connectors"):
        assert 0.95 * sizes[name] <= found[name] <= SLACK * sizes[name], (name, sizes[name], found[name])
        key, bits = found[f"{name} bits"]  # type: ignore[misc]
        assert bits == _stored(file, mapping.official_name(name, key))
