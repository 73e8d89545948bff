"""Configuration of the Gemma3 text model, read from the ``text_config`` of a text encoder's ``config.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conformance.errors import InputError, bad_field
from conformance.jsonio import read_json
from engine.configfile import parse_object

SLIDING, FULL = "sliding_attention", "full_attention"
# flat name of each kind's rotary base, as transformers 4 stores it
_THETA = {SLIDING: "rope_local_base_freq", FULL: "rope_theta"}

# key -> (implemented value, value of an absent key), the latter being transformers' default
_FIXED = {
    "model_type": ("gemma3_text", "gemma3_text"),
    "hidden_activation": ("gelu_pytorch_tanh", "gelu_pytorch_tanh"),
    "attention_bias": (False, False),
    "attn_logit_softcapping": (None, None),
    "use_bidirectional_attention": (False, False),
}
# read below, or without a meaning for hidden states: generation, training and the output head
_ELSEWHERE = frozenset(
    {
        *("layer_types", "sliding_window_pattern", "rope_parameters", "rope_scaling", *_THETA.values()),
        *("architectures", "attention_dropout", "bos_token_id", "cache_implementation", "dtype", "eos_token_id"),
        *("final_logit_softcapping", "initializer_range", "max_position_embeddings", "pad_token_id"),
        *("tie_word_embeddings", "torch_dtype", "transformers_version", "use_cache"),
    }
)


@dataclass(frozen=True, kw_only=True)
class Rope:
    """Rotary frequencies theta^(-2k/d) / factor."""

    theta: float
    factor: float


@dataclass(frozen=True, kw_only=True)
class _Sizes:
    """The plain numbers of ``text_config``. sliding_window: keys a query of a sliding layer sees, itself included."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    query_pre_attn_scalar: float
    rms_norm_eps: float
    sliding_window: int


@dataclass(frozen=True, kw_only=True)
class Gemma3Config(_Sizes):
    """The text model. sliding: one flag a layer, True for sliding-window attention."""

    sliding: tuple[bool, ...]
    sliding_rope: Rope
    full_rope: Rope

    @classmethod
    def load(cls, folder: Path) -> Gemma3Config:
        """Read and check ``folder/config.json``. InputError names the file, the key and what was expected."""
        path = folder / "config.json"
        whole = read_json(path)
        kind = whole.get("model_type") if isinstance(whole, dict) else None
        if kind != "gemma3":
            raise bad_field(str(path), "model_type", kind, "'gemma3'")
        data, where = whole.get("text_config"), f"{path}: text_config"
        sizes = parse_object(_Sizes, data, where, fixed=_FIXED, unused=_ELSEWHERE)
        _check_sizes(sizes, where)
        sliding = _sliding(data, sizes.num_hidden_layers, where)
        ropes = {kind: _rope(data, kind, where) for kind in (SLIDING, FULL)}
        return cls(**vars(sizes), sliding=sliding, sliding_rope=ropes[SLIDING], full_rope=ropes[FULL])


def _check_sizes(sizes: _Sizes, where: str) -> None:
    if sizes.num_attention_heads % sizes.num_key_value_heads:
        expected = f"a divisor of 'num_attention_heads' = {sizes.num_attention_heads}"
        raise bad_field(where, "num_key_value_heads", sizes.num_key_value_heads, expected)
    if sizes.head_dim % 2:
        raise bad_field(where, "head_dim", sizes.head_dim, "an even number")


def _sliding(data: Mapping[str, Any], layers: int, where: str) -> tuple[bool, ...]:
    """One flag a layer, from the list of types, or from the period after which one layer is full."""
    types, period = data.get("layer_types"), data.get("sliding_window_pattern")
    if types is None and period is None:
        raise InputError(f"{where}: missing field 'layer_types' or 'sliding_window_pattern'")
    if period is not None and (type(period) is not int or period <= 0):
        raise bad_field(where, "sliding_window_pattern", period, "a positive integer")
    by_period = None if period is None else [FULL if (i + 1) % period == 0 else SLIDING for i in range(layers)]
    if types is None:
        types = by_period
    if not isinstance(types, list) or len(types) != layers or any(kind not in (SLIDING, FULL) for kind in types):
        raise bad_field(where, "layer_types", types, f"a list of {layers} times {SLIDING!r} or {FULL!r}")
    if by_period is not None and types != by_period:
        first = next(i for i in range(layers) if types[i] != by_period[i])
        raise bad_field(
            where, "sliding_window_pattern", period, f"the pattern of 'layer_types' (layer {first} differs)"
        )
    return tuple(kind == SLIDING for kind in types)


def _rope(data: Mapping[str, Any], kind: str, where: str) -> Rope:
    """The rotary parameters of one kind of layer.

    transformers 5 nests them by kind; transformers 4 has two flat bases and one scaling, of the full layers.
    """
    flat = data.get(_THETA[kind])
    nested = data.get("rope_parameters")
    if nested is None:
        where_rope, values = where, (data.get("rope_scaling") if kind == FULL else None)
    else:
        if data.get("rope_scaling") is not None:
            raise bad_field(where, "rope_scaling", data["rope_scaling"], "null beside 'rope_parameters'")
        if not isinstance(nested, dict) or nested.keys() != {SLIDING, FULL}:
            raise bad_field(where, "rope_parameters", nested, f"an object of {SLIDING!r} and {FULL!r}")
        where_rope, values = f"{where}: rope_parameters.{kind}", nested[kind]
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise bad_field(where_rope, "rope_scaling", values, "an object or null")
    unknown = values.keys() - {"rope_type", "type", "factor", "rope_theta"}
    if unknown:
        raise InputError(f"{where_rope}: unknown field {sorted(unknown)[0]!r}, which is not implemented")
    rope_type = values.get("rope_type", values.get("type", "default"))
    if rope_type not in ("default", "linear"):
        raise bad_field(where_rope, "rope_type", rope_type, "'default' or 'linear'")
    theta = values.get("rope_theta", flat)
    if flat is not None and flat != theta:
        raise bad_field(where_rope, "rope_theta", theta, f"{flat!r}, as {_THETA[kind]!r} says")
    if rope_type == "default" and values.get("factor") is not None:
        raise bad_field(where_rope, "factor", values["factor"], "null, as 'rope_type' is 'default'")
    factor = values.get("factor") if rope_type == "linear" else 1.0
    return Rope(theta=_positive(theta, "rope_theta", where_rope), factor=_positive(factor, "factor", where_rope))


def _positive(value: Any, name: str, where: str) -> float:
    if type(value) not in (int, float) or not 0 < value < float("inf"):
        raise bad_field(where, name, value, "a positive number")
    return float(value)
