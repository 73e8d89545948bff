"""Prompts to padded token ids. Legend: B prompts, T tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from conformance.errors import InputError, bad_field
from conformance.jsonio import read_json

# what the library would otherwise add to the file's own template, or cut from its other end
_FIXED = {"add_bos_token": (True, None), "add_eos_token": (False, None), "truncation_side": ("right", None)}


@dataclass(frozen=True, kw_only=True)
class PromptTokenizer:
    """``tokenizer.json`` with the token that fills rows up."""

    backend: Tokenizer
    pad_token: str
    pad_id: int

    @classmethod
    def load(cls, folder: Path) -> PromptTokenizer:
        """Read ``tokenizer.json`` and the special tokens of ``tokenizer_config.json``; no pad token means eos.

        InputError when a file cannot be used, a special token is unknown, or the template of the file does not
        put one beginning-of-sequence token, and nothing else, around a prompt.
        """
        path, config_path = folder / "tokenizer.json", folder / "tokenizer_config.json"
        config = read_json(config_path)
        if not isinstance(config, dict):
            raise InputError(f"{config_path}: expected an object, got {type(config).__name__}")
        for name, allowed in _FIXED.items():
            if config.get(name) not in allowed:
                raise bad_field(
                    str(config_path), name, config[name], f"{allowed[0]!r}, which is all that is implemented"
                )
        try:
            backend = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises plain Exception
            raise InputError(f"{path}: cannot be read as a tokenizer: {str(error).splitlines()[0]}") from None
        name = "eos_token" if config.get("pad_token") is None else "pad_token"
        pad_token, pad_id = _token(config, name, backend, config_path)
        _, bos_id = _token(config, "bos_token", backend, config_path)
        backend.no_truncation()
        backend.no_padding()
        if (template := backend.encode("").ids) != [bos_id]:
            raise InputError(f"{path}: an empty prompt becomes {template}; expected [{bos_id}], the bos_token alone")
        return cls(backend=backend, pad_token=pad_token, pad_id=pad_id)

    @property
    def vocab_size(self) -> int:
        """One more than the highest id."""
        return max(self.backend.get_vocab(with_added_tokens=True).values()) + 1

    def __call__(self, prompts: Sequence[str], length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and mask [B,T] int64 with T = ``length``, 1 in the mask for a token and 0 for padding.

        Prompts are stripped. Padding is on the left; a prompt that is too long loses its end. InputError for
        text that is not Unicode.
        """
        self.backend.enable_truncation(length)
        self.backend.enable_padding(direction="left", pad_id=self.pad_id, pad_token=self.pad_token, length=length)
        try:  # half of a surrogate pair cannot be encoded
            rows = self.backend.encode_batch([prompt.strip().encode().decode() for prompt in prompts])
        except UnicodeEncodeError as error:
            raise InputError(f"a prompt is not valid Unicode: {error.reason} at character {error.start}") from None
        return torch.tensor([row.ids for row in rows]), torch.tensor([row.attention_mask for row in rows])


def _token(config: Mapping[str, Any], name: str, backend: Tokenizer, path: Path) -> tuple[str, int]:
    """A special token and its id; older files describe a token by an object with its content."""
    value = config.get(name)
    token = value.get("content") if isinstance(value, dict) else value
    index = backend.token_to_id(token) if isinstance(token, str) else None
    if not isinstance(token, str) or index is None:
        raise bad_field(str(path), name, value, "a token of tokenizer.json")
    return token, index
