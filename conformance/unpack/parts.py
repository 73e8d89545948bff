"""What an official file does not hold: text encoder with tokenizer, latent upsampler, distilled LoRA."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conformance import checkpoint
from conformance.errors import InputError, bad_field
from conformance.jsonio import read_json
from conformance.tensorfile import Tensor, read_header
from conformance.unpack import picture
from conformance.unpack.official import check_dtypes, configuration

# Of a flat folder, as a repository of the text encoder has it: files of the tokenizer, and of the encoder.
_TOKENIZER = (
    *("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json"),
    *("added_tokens.json", "chat_template.json", "chat_template.jinja"),
)
_ENCODER = ("config.json", "generation_config.json")
_WEIGHTS = "diffusion_pytorch_model.safetensors"


@dataclass(frozen=True, kw_only=True)
class TextEncoder:
    """files: path in the checkpoint -> file. The classes are those the files name."""

    files: Mapping[str, Path]
    encoder_class: str
    tokenizer_class: str


def text_encoder(folder: Path, width: int, layers: int) -> TextEncoder:
    """The text encoder and tokenizer in ``folder``: flat, or in ``text_encoder/`` and ``tokenizer/``.

    width, layers: what the connectors are made for, layers counting the embedding. InputError, one line, when a file
    is missing or damaged or the encoder is of another size.
    """
    if not folder.is_dir():
        raise InputError(f"--text-encoder {folder}: no such folder")
    folder = folder.absolute()
    nested = (folder / "text_encoder").is_dir()
    encoder, tokenizer = (folder / "text_encoder", folder / "tokenizer") if nested else (folder, folder)
    where = f"--text-encoder {folder}"
    for path in (encoder / "config.json", tokenizer / "tokenizer.json", tokenizer / "tokenizer_config.json"):
        if not path.is_file():
            raise InputError(f"{where}: {path.relative_to(folder)}: file is missing")
    tensors = checkpoint.weights(encoder.parent, encoder.name, "model")
    check_dtypes(encoder, tensors)
    config = read_json(encoder / "config.json")
    text = config.get("text_config") if isinstance(config, dict) else None
    if not isinstance(text, dict):
        raise bad_field(str(encoder / "config.json"), "text_config", text, "an object: that of a Gemma3 model")
    for name, value in (("hidden_size", width), ("num_hidden_layers", layers - 1)):
        if text.get(name) != value:
            raise bad_field(f"{encoder / 'config.json'}: text_config", name, text.get(name), f"{value}, as in the file")
    if nested:
        found = [path for part in (encoder, tokenizer) for path in sorted(part.iterdir()) if path.is_file()]
        files = {path.relative_to(folder).as_posix(): path for path in found}
    else:
        index = folder / "model.safetensors.index.json"
        names = (*_ENCODER, *{tensor.file.name for tensor in tensors.values()}, *([index.name] * index.is_file()))
        files = {f"text_encoder/{name}": folder / name for name in names if (folder / name).is_file()}
        files |= {f"tokenizer/{name}": folder / name for name in _TOKENIZER if (folder / name).is_file()}
    return TextEncoder(
        files=files,
        encoder_class=_class(config, encoder / "config.json", "architectures"),
        tokenizer_class=_class(
            read_json(tokenizer / "tokenizer_config.json"), tokenizer / "tokenizer_config.json", "tokenizer_class"
        ),
    )


def _class(config: Any, path: Path, field: str) -> str:
    value = config.get(field) if isinstance(config, dict) else None
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, str):
        raise bad_field(str(path), field, value, "the name of a class")
    return value


def upsampler(path: Path, channels: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration and tensors of an upsampler: an official file, or a ``latent_upsampler`` folder.

    channels: of the video latents. InputError when it is missing, damaged or for other latents.
    """
    where = f"--upsampler {path}"
    path = path.absolute()
    if path.is_dir():
        config = read_json(path / "config.json")
        if not isinstance(config, dict):
            raise InputError(f"{path / 'config.json'}: expected an object, got {type(config).__name__}")
        tensors = checkpoint.weights(path.parent, path.name, Path(_WEIGHTS).stem)
    elif path.is_file():
        tensors, metadata = read_header(path, where)
        config = picture.upsampler(configuration(path, metadata))
    else:
        raise InputError(f"{where}: no such file or folder")
    check_dtypes(path, tensors)
    if config.get("in_channels") != channels:
        raise bad_field(where, "in_channels", config.get("in_channels"), f"{channels}, the channels of the latents")
    return config, tensors


def lora(path: Path) -> Path:
    """The file of a distilled LoRA. InputError when it is missing or damaged."""
    where = f"--lora {path}"
    if path.is_file() and path.suffix != ".safetensors":
        raise InputError(f"{where}: expected a .safetensors file")
    tensors, _ = read_header(path, where)
    if not any(name.endswith(".lora_A.weight") for name in tensors):
        raise InputError(f"{where}: no tensor '*.lora_A.weight'; expected a LoRA")
    return path
