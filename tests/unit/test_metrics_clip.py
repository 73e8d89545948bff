"""CLIP: a tiny model of open_clip with weights saved by the test; the similarity itself needs no pretrained ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from conformance import guard
from conformance.errors import InputError
from conformance.metrics import REGISTRY, FramePair
from conformance.metrics.clip import ClipScorer

TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def open_clip(tmp_path_factory: pytest.TempPathFactory) -> Any:
    guard.install()
    import open_clip

    config = tmp_path_factory.mktemp("configs") / "tiny-test.json"
    config.write_text(json.dumps(TINY))
    open_clip.add_model_config(config)
    return open_clip


@pytest.fixture(scope="module")
def weights(open_clip: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file({k: v.contiguous() for k, v in open_clip.create_model("tiny-test").state_dict().items()}, path)
    return path


def image(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (40, 52, 3), dtype=np.uint8)


def test_local_weights_are_the_ones_used(open_clip: Any, weights: Path) -> None:
    from PIL import Image
    from safetensors.torch import load_file

    scorer = ClipScorer.load(f"tiny-test:{weights}")
    assert scorer is not None
    assert scorer.label == f"tiny-test:{weights}"
    model, _, preprocess = open_clip.create_model_and_transforms("tiny-test")
    model.load_state_dict(load_file(weights))
    model.eval()
    with torch.no_grad():
        a, b = (model.encode_image(preprocess(Image.fromarray(image(i)))[None])[0].double() for i in (1, 2))
    expected = float(a @ b / (a.norm() * b.norm()))
    found = REGISTRY["clip"].function(FramePair(image(1), image(2), scorer))
    assert found == pytest.approx(expected, abs=1e-6)
    assert abs(found) < 0.9999
    assert scorer.similarity(image(1), image(1)) == pytest.approx(1, abs=1e-9)
    assert scorer.similarity(image(1), image(2)) == scorer.similarity(image(2), image(1))


def test_without_weights_clip_is_not_measured() -> None:
    assert ClipScorer.load(None) is None
    with pytest.raises(InputError, match="no CLIP weights were given"):
        REGISTRY["clip"].function(FramePair(image(1), image(2)))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "expected MODEL:FILE"),
        ("ViT-B-32", "expected MODEL:FILE"),
        (":openai", "expected MODEL:FILE"),
        ("ViT-B-32:", "expected MODEL:FILE"),
        ("ViT-B-32:weights/model.pt", "expected a .safetensors file"),
        ("ViT-B-32:model.bin", "expected a .safetensors file"),
        ("ViT-B-32:missing/model.safetensors", "expected an existing file"),
    ],
)
def test_bad_specs(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ClipScorer.load(spec)


def test_unknown_model_and_tag(open_clip: Any, weights: Path) -> None:
    with pytest.raises(InputError, match="'model' is 'nope'"):
        ClipScorer.load(f"nope:{weights}")
    with pytest.raises(InputError, match=r"'tag' is 'nope'; expected one of \['openai'"):
        ClipScorer.load("ViT-B-32:nope")


def test_weights_that_do_not_fit_are_refused(open_clip: Any, weights: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    state = load_file(weights)
    del state["visual.proj"]
    save_file(state, tmp_path / "lacking.safetensors")
    with pytest.raises(InputError, match=r"cannot be loaded into 'tiny-test'.*visual\.proj"):
        ClipScorer.load(f"tiny-test:{tmp_path / 'lacking.safetensors'}")
    (tmp_path / "garbage.safetensors").write_bytes(b"not weights")
    with pytest.raises(InputError, match="cannot be loaded"):
        ClipScorer.load(f"tiny-test:{tmp_path / 'garbage.safetensors'}")


def test_an_unreachable_hub_is_an_error(open_clip: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise RuntimeError("Failed to download\nweights")

    monkeypatch.setattr(open_clip, "create_model_and_transforms", offline)
    with pytest.raises(
        InputError, match="weights 'openai' cannot be loaded into 'ViT-B-32': Failed to download weights"
    ):
        ClipScorer.load("ViT-B-32:openai")
