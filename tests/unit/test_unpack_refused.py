"""Official files, text encoders, upsamplers and LoRAs that cannot be used: one line each, before anything is copied."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from conformance import tensorfile, unpack
from conformance.errors import InputError
from reference_impl.tiny import official_file
from reference_impl.tiny.build import cached

Tensors = dict[str, torch.Tensor]
DIT = "model.diffusion_model."


@pytest.fixture(autouse=True)
def nothing_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(*arguments: Any) -> None:
        raise AssertionError("bytes are copied before everything is checked")

    monkeypatch.setattr(tensorfile, "write", write)


def changed(
    tmp_path: Path, *, tensors: Callable[[Tensors], Any] | None = None, config: Callable[[Any], Any] | None = None
) -> Path:
    """The tiny official file with its tensors or its configuration edited."""
    source = official_file.cached("ltx-2.3")
    with safe_open(source, framework="pt") as file:
        metadata = file.metadata()
    stored = load_file(source)
    if tensors:
        tensors(stored)
    if config:
        whole = json.loads(metadata["config"])
        config(whole)
        metadata["config"] = json.dumps(whole)
    save_file(stored, tmp_path / "changed.safetensors", metadata=metadata)
    return tmp_path / "changed.safetensors"


def refused(
    file: Path, message: str, *, text: Path | None = None, up: Path | None = None, lora: Path | None = None
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        unpack.unpacked(file, text or cached("ltx-2.3"), up, lora, lambda place: None)
    assert "\n" not in str(caught.value)


def rename(tensors: Tensors, old: str, new: str) -> None:
    tensors[new] = tensors.pop(old)


TENSORS: dict[str, tuple[Callable[[Tensors], Any], str]] = {
    "missing": (lambda t: t.pop(f"{DIT}proj_out.weight"), r"transformer lacks tensor 'proj_out.weight' \(1 in all\)"),
    "missing VAE": (lambda t: t.pop("vae.decoder.conv_in.conv.bias"), "vae lacks tensor 'decoder.conv_in.conv.bias'"),
    "no component": (lambda t: [t.pop(k) for k in list(t) if k.startswith("vocoder.")], "no tensor of component 'voc"),
    "no connector": (
        lambda t: t.pop(f"{DIT}audio_embeddings_connector.learnable_registers"),
        "asks for tensor 'model.diffusion_model.audio_embeddings_connector.learnable_registers'.* found None",
    ),
    "extra": (
        lambda t: t.update({f"{DIT}transformer_blocks.7.attn1.to_q.bias": torch.zeros(128)}),
        "transformer has a tensor that its configuration does not ask for, 'transformer_blocks.7.attn1.to_q.bias'",
    ),
    "unknown": (
        lambda t: t.update({f"{DIT}extra": torch.zeros(1)}),
        "tensor 'model.diffusion_model.extra' is not known",
    ),
    "later model": (lambda t: t.update({"duration_head.x": torch.zeros(1)}), "tensor 'duration_head.x' is not known"),
    "shape": (
        lambda t: t.update({f"{DIT}proj_out.weight": torch.zeros(2, 2)}),
        r"transformer tensor 'proj_out.weight' is \(2, 2\); expected \(128, 128\)",
    ),
    "quantised": (
        lambda t: t.update({f"{DIT}proj_out.weight": torch.zeros(128, 128, dtype=torch.float8_e4m3fn)}),
        "tensor 'model.diffusion_model.proj_out.weight': 'dtype' is 'F8_E4M3'; expected one of .*quantised",
    ),
    "mixed layouts": (
        lambda t: rename(t, f"{DIT}patchify_proj.weight", "proj_in.weight"),
        "two layouts mixed: 'audio_vae.*' is of the official file, 'proj_in.weight' of a diffusers folder",
    ),
    "mixed, prefixed": (
        lambda t: t.update({"transformer.proj_in.weight": torch.zeros(1)}),
        "two layouts mixed: .* 'transformer.proj_in.weight' of a diffusers folder",
    ),
}


@pytest.mark.parametrize("name", TENSORS)
def test_tensors(name: str, tmp_path: Path) -> None:
    edit, message = TENSORS[name]
    refused(changed(tmp_path, tensors=edit), message)


CONFIGS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "no section": (lambda c: c.pop("vocoder"), "config: no section 'vocoder'"),
    "section": (lambda c: c.update(vae=[]), r"config: 'vae' is \[\]; expected an object"),
    "rope": (
        lambda c: c["transformer"].update(rope_type="interleaved"),
        "'rope_type' is 'interleaved'; expected 'split'",
    ),
    "no rope": (lambda c: c["transformer"].pop("rope_type"), "'rope_type' is None; expected 'split'"),
    "grid": (
        lambda c: c["transformer"].update(frequencies_precision="float32"),
        "'frequencies_precision' is 'float32'",
    ),
    "checked": (lambda c: c["transformer"].pop("share_ff"), "config.transformer: 'share_ff' is None; expected False"),
    "later": (lambda c: c["transformer"].update(ff_bias=False), "'ff_bias' is False; expected True"),
    "half projected": (
        lambda c: c["transformer"].pop("caption_proj_input_norm"),
        "'caption_proj_input_norm' is None; expected False",
    ),
    "layers": (lambda c: c["transformer"].update(num_layers=2), "does not ask for, 'transformer_blocks.2.attn1.norm_k"),
    "type": (lambda c: c["transformer"].update(num_layers="3"), "'num_layers' is '3'; expected a positive integer"),
    "no heads": (
        lambda c: c["transformer"].pop("audio_attention_head_dim"),
        "config.transformer: 'audio_attention_head_dim' is None; expected a positive integer",
    ),
    "fraction": (lambda c: c["transformer"].update(num_layers=2.5), "'num_layers' is 2.5"),
    "negative": (lambda c: c["transformer"].update(norm_eps=-1.0), "'norm_eps' is -1.0; expected a positive number"),
    "flag": (
        lambda c: c["transformer"].update(apply_gated_attention=1),
        "'apply_gated_attention' is 1; expected true or",
    ),
    "positions": (
        lambda c: c["transformer"].update(positional_embedding_max_pos=[20]),
        r"'positional_embedding_max_pos' is \[20\]; expected a list of 3 positive integers",
    ),
    "heads": (
        lambda c: c["transformer"].update(audio_num_attention_heads=2),
        "changed.safetensors: derived transformer/config.json: 'audio_num_attention_heads' is 2; expected 4",
    ),
    "text width": (
        lambda c: c["transformer"].update(caption_channels=60),
        "'caption_channels' is 60; expected a divisor",
    ),
    "noise": (
        lambda c: c["vae"]["decoder_blocks"][0][1].update(inject_noise=True),
        r"config.vae.decoder_blocks\[0\]: 'inject_noise' is True; expected False",
    ),
    "block": (
        lambda c: c["vae"]["decoder_blocks"].__setitem__(1, ["attn_res_x", {}]),
        r"config.vae: 'decoder_blocks\[1\]' is 'attn_res_x'; expected one of \('compress_space'",
    ),
    "order": (
        lambda c: c["vae"]["encoder_blocks"].pop(0),
        r"'encoder_blocks\[0\]' is 'compress_space_res'; expected 'res_x",
    ),
    "blocks": (
        lambda c: c["vae"]["encoder_blocks"].pop(),
        "'encoder_blocks' is '8 blocks'; expected residual and resamp",
    ),
    "pairs": (
        lambda c: c["vae"].update(encoder_blocks=[3]),
        r"'encoder_blocks' is \[3\]; expected a list of \[kind, par",
    ),
    "width": (
        lambda c: c["vae"]["decoder_blocks"][1][1].update(multiplier=3),
        "config.vae: 'decoder_blocks' is .*; expected multipliers that make whole numbers",
    ),
    "padding": (
        lambda c: c["vae"].update(spatial_padding_mode="wrap"),
        "'spatial_padding_mode' is 'wrap'; expected one of",
    ),
    "timestep": (lambda c: c["vae"].pop("timestep_conditioning"), "'timestep_conditioning' is True; expected False"),
    "group norm": (
        lambda c: c["vae"].update(norm_layer="group_norm"),
        "'norm_layer' is 'group_norm'; expected 'pixel_n",
    ),
    "attention": (
        lambda c: c["audio_vae"]["model"]["params"]["ddconfig"].update(attn_resolutions=[64]),
        r"'attn_resolutions' is \[64\]; expected none of \[64, 128, 256\]: attention is not implemented",
    ),
    "middle attention": (
        lambda c: c["audio_vae"]["model"]["params"]["ddconfig"].pop("mid_block_add_attention"),
        "'mid_block_add_attention' is True; expected False",
    ),
    "mel bins": (
        lambda c: c["audio_vae"]["model"]["params"]["ddconfig"].pop("mel_bins"),
        "'mel_bins' is None; expected a positive integer",
    ),
    "snake": (
        lambda c: c["vocoder"]["bwe"].pop("activation"),
        "config.vocoder.bwe: 'activation' is None; expected 'snake",
    ),
    "mono": (lambda c: c["vocoder"]["vocoder"].update(stereo=False), "config.vocoder.vocoder: 'stereo' is False"),
    "spectrum": (
        lambda c: c["vocoder"]["bwe"].pop("n_fft"),
        "config.vocoder.bwe: 'n_fft' is None; expected a positive",
    ),
    "dilations": (
        lambda c: c["vocoder"]["bwe"].update(resblock_dilation_sizes=[3]),
        "is .3.; expected a list of lists",
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_configurations_of_kinds_that_are_not_implemented(name: str, tmp_path: Path) -> None:
    edit, message = CONFIGS[name]
    refused(changed(tmp_path, config=edit), message)


def test_files_that_are_no_official_file(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    save_file({"x": torch.zeros(1)}, path)
    refused(path, "not an official file: tensor 'x' and the others have names of no known layout")
    refused(
        cached("ltx-2") / "transformer/diffusion_pytorch_model.safetensors", "names of a diffusers folder: give the"
    )
    save_file({}, path)
    refused(path, "no tensor of component 'transformer'")
    whole = official_file.cached("ltx-2.3")
    for metadata, message in (
        (None, "no 'config' in its metadata"),
        ({"config": "{"}, "'config' in its metadata is not valid JSON"),
        ({"config": "[]"}, "'config' is 'list'; expected a JSON object"),
        ({"config": "{}"}, "config: no section 'transformer'"),
    ):
        save_file(load_file(whole), path, metadata=metadata)
        refused(path, message)
    path.write_bytes(whole.read_bytes()[:-1])
    refused(path, "truncated: ")
    path.write_bytes(b"PK" + bytes(64))
    refused(path, "header of|truncated|corrupt")


def encoder(tmp_path: Path) -> Path:
    folder = tmp_path / "encoder"
    for part in ("text_encoder", "tokenizer"):
        shutil.copytree(cached("ltx-2.3") / part, folder / part)
    return folder


def text_config(folder: Path, **changes: Any) -> None:
    path = folder / "text_encoder" / "config.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps(data | {"text_config": data["text_config"] | changes}))


ENCODERS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "absent": (shutil.rmtree, "--text-encoder .*: no such folder"),
    "no tokenizer": (lambda f: shutil.rmtree(f / "tokenizer"), "tokenizer/tokenizer.json: file is missing"),
    "no config": (lambda f: (f / "text_encoder/config.json").unlink(), "text_encoder/config.json: file is missing"),
    "no weights": (lambda f: (f / "text_encoder/model.safetensors").unlink(), "model.safetensors: file is missing"),
    "pickled": (
        lambda f: (f / "text_encoder/model.safetensors").rename(f / "text_encoder/pytorch_model.bin"),
        "text_encoder/pytorch_model.bin: pickled weights are refused",
    ),
    "another width": (lambda f: text_config(f, hidden_size=96), "'hidden_size' is 96; expected 64, as in the file"),
    "another depth": (lambda f: text_config(f, num_hidden_layers=9), "'num_hidden_layers' is 9; expected 7"),
    "no class": (
        lambda f: (f / "tokenizer/tokenizer_config.json").write_text("{}"),
        "tokenizer_config.json: 'tokenizer_class' is None; expected the name of a class",
    ),
    "another model": (
        lambda f: (f / "text_encoder/config.json").write_text("{}"),
        "'text_config' is None; expected an",
    ),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_text_encoders(name: str, tmp_path: Path) -> None:
    edit, message = ENCODERS[name]
    folder = encoder(tmp_path)
    edit(folder)
    refused(official_file.cached("ltx-2.3"), message, text=folder)


def test_upsamplers(tmp_path: Path) -> None:
    file = official_file.cached("ltx-2.3")
    refused(file, "--upsampler .*nothing: no such file", up=tmp_path / "nothing")
    refused(file, "--upsampler .*: no 'config'|no 'config' in its metadata", up=_saved(tmp_path, None))
    refused(file, "'temporal_upsample' is True; expected False", up=_saved(tmp_path, {"temporal_upsample": True}))
    refused(
        file, "'in_channels' is 64; expected 128, the channels of the latents", up=_saved(tmp_path, {"in_channels": 64})
    )
    refused(file, "latent_upsampler lacks tensor", up=_saved(tmp_path, {"num_blocks_per_stage": 2}))
    refused(
        file,
        "latent_upsampler tensor 'final_conv.bias' is|latent_upsampler tensor",
        up=_saved(tmp_path, {"mid_channels": 64}),
    )
    refused(file, "is missing|cannot be read", up=cached("ltx-2.3") / "scheduler")


def _saved(tmp_path: Path, changes: dict[str, Any] | None) -> Path:
    path = tmp_path / "up.safetensors"
    official_file.write_upsampler(cached("ltx-2.3"), path)
    with safe_open(path, framework="pt") as file:
        config = json.loads(file.metadata()["config"])
    metadata = None if changes is None else {"config": json.dumps(config | changes)}
    save_file(load_file(path), path, metadata=metadata)
    return path


def test_loras(tmp_path: Path) -> None:
    file = official_file.cached("ltx-2.3")
    refused(file, "--lora .*nothing: file is missing", lora=tmp_path / "nothing")
    pickled = tmp_path / "lora.bin"
    pickled.write_bytes(b"x")
    refused(file, "lora.bin: expected a .safetensors file", lora=pickled)
    refused(file, r"no tensor '\*.lora_A.weight'; expected a LoRA", lora=file)
    cut = tmp_path / "lora.safetensors"
    save_file({"diffusion_model.proj_out.lora_A.weight": torch.zeros(2, 128)}, cut)
    cut.write_bytes(cut.read_bytes()[:-1])
    refused(file, "--lora .*: truncated", lora=cut)
