"""Prompts to ids against transformers' AutoTokenizer, and the text encoder as a whole."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from gemma3_reference import CPU, batch
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from conformance.errors import InputError
from engine.models.gemma3.tokenizer import PromptTokenizer
from engine.text import TextEncoder
from reference_impl.tiny.build import cached

CHECKPOINT = cached("ltx-2.3")
PROMPTS = [
    "a cat runs",
    "",
    "  \n stripped\t ",
    "Ünïcødé, naïve — 猫 🐈\u200d⬛ e\u0301 \u00a0x",
    "<eos> inside <bos> and <pad>",
    "two  spaces\nand a line",
    "long " * 400,
]


def reference(folder: Path, prompts: list[str], length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """As the diffusers pipeline calls it."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    out = tokenizer(
        [prompt.strip() for prompt in prompts],
        padding="max_length",
        max_length=length,
        truncation=True,
        add_special_tokens=True,
        return_tensors="pt",
    )
    return out.input_ids, out.attention_mask


def check(folder: Path, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    ids, mask = PromptTokenizer.load(folder)(PROMPTS, length)
    expected_ids, expected_mask = reference(folder, PROMPTS, length)
    assert ids.dtype == mask.dtype == expected_ids.dtype == torch.int64
    assert torch.equal(ids, expected_ids)
    assert torch.equal(mask, expected_mask)
    return ids, mask


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return shutil.copytree(CHECKPOINT / "tokenizer", tmp_path / "tokenizer")


def edit(path: Path, **changes: Any) -> None:
    data = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in data.items() if value is not ...}))


@pytest.mark.parametrize("length", [1, 8, 64, 1024])
def test_tiny_tokenizer(length: int) -> None:
    ids, mask = check(CHECKPOINT / "tokenizer", length)
    assert mask[1].tolist() == [0] * (length - 1) + [1]  # the empty prompt is the first token alone
    assert ids[-1, 0] == 2  # a prompt that is cut keeps its first token
    assert mask[-1].all()


def test_no_pad_token_means_eos(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", pad_token=..., eos_token={"__type": "AddedToken", "content": "<eos>"})
    ids, mask = PromptTokenizer.load(folder)(["ab"], 5)
    assert ids[0, :2].tolist() == [1, 1]
    assert mask[0].tolist() == [0, 0, 1, 1, 1]
    edit(folder / "tokenizer_config.json", eos_token="<eos>")
    check(folder, 32)


def test_limits_stored_in_the_file_are_not_used(folder: Path) -> None:
    stored = Tokenizer.from_file(str(folder / "tokenizer.json"))
    stored.enable_truncation(3)
    stored.enable_padding(length=3, pad_id=3, pad_token="<unk>", direction="right")
    stored.save(str(folder / "tokenizer.json"))
    check(folder, 32)


def gemma_like(folder: Path) -> Path:
    """A small tokenizer of Gemma's kind: byte-fallback BPE, spaces as U+2581, its own class in the configuration."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    characters = ["▁", "\n", *"abcdefghijklmnopqrstuvwxyz<>", "é"]
    merges = [("▁", "a"), ("r", "u"), ("ru", "n"), ("l", "o"), ("n", "g"), ("lo", "ng"), ("▁", "▁")]
    pieces = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *characters, *map("".join, merges)]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = ("pad", "eos", "bos", "unk", "mask")
    config = {f"{name}_token": f"<{name}>" for name in names} | {"tokenizer_class": "GemmaTokenizer"}
    config |= {"add_bos_token": True, "add_eos_token": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("length", [8, 64, 1024])
def test_tokenizer_of_gemmas_kind(tmp_path: Path, length: int) -> None:
    ids, _ = check(gemma_like(tmp_path), length)
    assert len(ids.unique()) > 7


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bos_token": None}, "'bos_token' is None; expected a token of tokenizer.json"),
        ({"pad_token": "<nothing>"}, "'pad_token' is '<nothing>'; expected a token"),
        ({"pad_token": None, "eos_token": None}, "'eos_token' is None"),
        ({"bos_token": "<eos>"}, r"an empty prompt becomes \[2\]; expected \[1\]"),
        ({"add_bos_token": False}, "'add_bos_token' is False; expected True"),
        ({"add_eos_token": True}, "'add_eos_token' is True; expected False"),
        ({"truncation_side": "left"}, "'truncation_side' is 'left'; expected 'right'"),
    ],
)
def test_refused_configs(folder: Path, changes: dict[str, Any], message: str) -> None:
    edit(folder / "tokenizer_config.json", **changes)
    with pytest.raises(InputError, match=message):
        PromptTokenizer.load(folder)


def test_refused_files(folder: Path) -> None:
    path = folder / "tokenizer.json"
    edit(path, post_processor=None)
    with pytest.raises(InputError, match=r"an empty prompt becomes \[\]; expected \[2\]"):
        PromptTokenizer.load(folder)
    for text in ("", "{}"):
        path.write_text(text)
        with pytest.raises(InputError, match="cannot be read as a tokenizer"):
            PromptTokenizer.load(folder)
    path.unlink()
    with pytest.raises(InputError, match="cannot be read as a tokenizer"):
        PromptTokenizer.load(folder)
    (folder / "tokenizer_config.json").write_text("[]")
    with pytest.raises(InputError, match="expected an object, got list"):
        PromptTokenizer.load(folder)


def test_text_that_is_not_unicode() -> None:
    with pytest.raises(InputError, match=r"not valid Unicode: .* at character 2"):
        PromptTokenizer.load(CHECKPOINT / "tokenizer")(["ab\ud800"], 8)


@torch.inference_mode()
def test_encoder_flattens_layers_fastest() -> None:
    encoder = TextEncoder.load(CHECKPOINT, torch.float32, CPU)
    embeds, mask = encoder.encode(["a cat", "dogs"], 16)
    ids, _ = encoder.tokenizer(["a cat", "dogs"], 16)
    states = encoder.model(ids, mask)
    assert mask.tolist() == batch((6, 5), 16, 256)[1].tolist()
    assert torch.equal(embeds, states.reshape(2, 16, 64 * 8))
    assert torch.equal(embeds[..., 3 * 8 + 5], states[..., 3, 5])


def test_tokenizer_that_does_not_fit_the_encoder(tmp_path: Path) -> None:
    shutil.copytree(CHECKPOINT / "text_encoder", tmp_path / "text_encoder")
    (tmp_path / "tokenizer").mkdir()
    gemma_like(tmp_path / "tokenizer")
    with pytest.raises(InputError, match="tokens, the text encoder embeds 256"):
        TextEncoder.load(tmp_path, torch.float32, CPU)
