"""The DiT of LTX-2 and LTX-2.3 in float64, from its stored weights: the truth that two implementations are measured by.

Nothing is rounded but what the model defines as float32: positions, their fractions, the frequency grid, the rotary
angles, and frequencies and angles of the timestep sinusoid. Written from the model's description, not from an engine.
Legend: B batch, T tokens of a stream, S text tokens, W width, C latent channels, H heads, d head dim, R = d/2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from reference_impl.spec import layers, positions, rotary
from reference_impl.spec.rounding import exact, f32

Weights = Mapping[str, torch.Tensor]
Tables = tuple[torch.Tensor, torch.Tensor]
_QK_EPS = _OUT_EPS = 1e-6
_EXACT = torch.float64


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Of one forward. video, audio [B,T,C] and text [B,S,W] of any dtype, the latter without a mask; times: noise level
    times 1000 [B] or [B,T] float32; bounds [B,3|1,T,2] float32. perturbed: blocks whose self attention passes its
    values through. isolated: no attention between the streams.
    """

    video: torch.Tensor
    audio: torch.Tensor
    video_text: torch.Tensor
    audio_text: torch.Tensor
    timestep: torch.Tensor
    audio_timestep: torch.Tensor
    sigma: torch.Tensor
    video_bounds: torch.Tensor
    audio_bounds: torch.Tensor
    perturbed: tuple[int, ...] = ()
    isolated: bool = False


@dataclass(frozen=True)
class _Part:
    """The weights behind a prefix of their names."""

    weights: Weights
    prefix: str = ""

    def at(self, name: str) -> _Part:
        return _Part(self.weights, f"{self.prefix}{name}.")

    def get(self, name: str) -> torch.Tensor:
        return exact(self.weights[self.prefix + name])

    def has(self, name: str) -> bool:
        return self.prefix + name in self.weights

    def linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return x @ self.get(f"{name}.weight").T + self.get(f"{name}.bias")


def _silu(x: torch.Tensor) -> torch.Tensor:
    return x / (1.0 + torch.exp(-x))


def _rms(x: torch.Tensor, eps: float) -> torch.Tensor:
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps)


def _modulate(x: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return x * (1.0 + scale) + shift


def _head(part: _Part, times: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """AdaLN rows [B,T|1,k*W] and the embedding [B,T|1,W] they are made of."""
    batch = times.shape[0]
    mlp = part.at("emb").at("timestep_embedder")
    hidden = mlp.linear("linear_2", _silu(mlp.linear("linear_1", layers.sinusoid(times.flatten()))))
    rows = part.linear("linear", _silu(hidden))
    return rows.unflatten(0, (batch, -1)), hidden.unflatten(0, (batch, -1))


def _rows(table: torch.Tensor, ada: torch.Tensor) -> list[torch.Tensor]:
    return layers.modulation_rows(table, ada, _EXACT)


def _rotated(x_BTHd: torch.Tensor, tables: Tables | None) -> torch.Tensor:
    if tables is None:
        return x_BTHd
    cos, sin = (table.transpose(1, 2) for table in tables)
    a, b = x_BTHd.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


def _attention(
    part: _Part,
    heads: int,
    x: torch.Tensor,
    context: torch.Tensor,
    ropes: tuple[Tables | None, Tables | None],
    *,
    values_only: bool = False,
) -> torch.Tensor:
    value = part.linear("to_v", context).unflatten(2, (heads, -1))
    if values_only:
        out = value
    else:
        q, k = (
            _rotated(
                (_rms(part.linear(f"to_{n}", y), _QK_EPS) * part.get(f"norm_{n}.weight")).unflatten(2, (heads, -1)),
                rope,
            )
            for n, y, rope in (("q", x, ropes[0]), ("k", context, ropes[1]))
        )
        scores = torch.einsum("bthd,bshd->bhts", q, k) / q.shape[-1] ** 0.5
        out = torch.einsum("bhts,bshd->bthd", torch.softmax(scores, dim=-1), value)
    if part.has("to_gate_logits.weight"):
        out = layers.gated(out, part.linear("to_gate_logits", x), _EXACT)
    return part.linear("to_out.0", out.flatten(2))


def _feed_forward(part: _Part, x: torch.Tensor) -> torch.Tensor:
    return part.linear("net.2", layers.gelu_tanh(part.linear("net.0.proj", x), _EXACT))


@dataclass(frozen=True)
class _Stream:
    """What a block reads of one modality; names of its weights begin with ``prefix``."""

    prefix: str
    text: torch.Tensor
    ada: torch.Tensor
    prompt: torch.Tensor | None
    cross: torch.Tensor
    gate: torch.Tensor
    rope: Tables
    cross_rope: Tables


def _own(part: _Part, heads: int, eps: float, x: torch.Tensor, stream: _Stream, perturbed: bool) -> torch.Tensor:
    """Self attention and text attention."""
    name = stream.prefix
    rows = _rows(part.get(f"{name}scale_shift_table"), stream.ada)
    y = _modulate(_rms(x, eps), rows[0], rows[1])
    ropes = (stream.rope, stream.rope)
    x = x + _attention(part.at(f"{name}attn1"), heads, y, y, ropes, values_only=perturbed) * rows[2]
    y, text = _rms(x, eps), stream.text
    if stream.prompt is None:
        return x + _attention(part.at(f"{name}attn2"), heads, y, text, (None, None))
    shift, scale = _rows(part.get(f"{name}prompt_scale_shift_table"), stream.prompt)
    y, text = _modulate(y, rows[6], rows[7]), _modulate(text, shift, scale)
    return x + _attention(part.at(f"{name}attn2"), heads, y, text, (None, None)) * rows[8]


def _across(
    part: _Part, heads: int, eps: float, states: tuple[torch.Tensor, torch.Tensor], streams: tuple[_Stream, _Stream]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Audio to video and video to audio, both from the states before either."""
    normed, out = [_rms(x, eps) for x in states], []
    tables = [part.get(f"{name}_a2v_cross_attn_scale_shift_table") for name in ("video", "audio")]
    rows = [_rows(table[:4], stream.cross) for table, stream in zip(tables, streams, strict=True)]
    for index, name in enumerate(("audio_to_video_attn", "video_to_audio_attn")):
        # rows: scale and shift for audio to video, then for video to audio
        to, of = (
            _modulate(normed[side], rows[side][2 * index + 1], rows[side][2 * index]) for side in (index, 1 - index)
        )
        ropes = (streams[index].cross_rope, streams[1 - index].cross_rope)
        (gate,) = _rows(tables[index][4:], streams[index].gate)
        out.append(states[index] + _attention(part.at(name), heads, to, of, ropes) * gate)
    return out[0], out[1]


def _block(
    part: _Part,
    heads: int,
    eps: float,
    states: tuple[torch.Tensor, torch.Tensor],
    streams: tuple[_Stream, _Stream],
    *,
    perturbed: bool,
    isolated: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    video, audio = (_own(part, heads, eps, x, s, perturbed) for x, s in zip(states, streams, strict=True))
    if not isolated:
        video, audio = _across(part, heads, eps, (video, audio), streams)
    out = []
    for x, stream in zip((video, audio), streams, strict=True):
        rows = _rows(part.get(f"{stream.prefix}scale_shift_table"), stream.ada)
        y = _modulate(_rms(x, eps), rows[3], rows[4])
        out.append(x + _feed_forward(part.at(f"{stream.prefix}ff"), y) * rows[5])
    return out[0], out[1]


def _tables(bounds: torch.Tensor, maxima: tuple[int, ...], width: int, config: Mapping[str, Any]) -> Tables:
    """cos and sin of the middles of the first axes, float64 of float32 angles."""
    middles = positions.midpoints(bounds, torch.float32)
    fractions = torch.stack([f32(middles[:, axis] / maximum) for axis, maximum in enumerate(maxima)], dim=1)
    grid = rotary.frequency_grid(width // (2 * len(maxima)), config["rope_theta"])
    return rotary.tables(rotary.angles(fractions, grid), width, config["num_attention_heads"])


def velocities(weights: Weights, config: Mapping[str, Any], inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
    """Of video and audio [B,T,C], float64. weights: diffusers layout; config: its ``transformer/config.json``."""
    root, heads = _Part(weights), config["num_attention_heads"]
    widths = (heads * config["attention_head_dim"], heads * config["audio_attention_head_dim"])
    shared = max(config["pos_embed_max_pos"], config["audio_pos_embed_max_pos"])
    gate_factor = config["cross_attn_timestep_scale_multiplier"] / config["timestep_scale_multiplier"]
    own_maxima = (
        (config["pos_embed_max_pos"], config["base_height"], config["base_width"]),
        (config["audio_pos_embed_max_pos"],),
    )
    states, streams, embedded = [], [], []
    for index, (prefix, name) in enumerate((("", "video"), ("audio_", "audio"))):
        text, bounds = exact(getattr(inputs, f"{name}_text")), getattr(inputs, f"{name}_bounds")
        if root.has(f"{prefix}caption_projection.linear_1.weight"):
            caption = root.at(f"{prefix}caption_projection")
            text = caption.linear("linear_2", layers.gelu_tanh(caption.linear("linear_1", text), _EXACT))
        ada, hidden = _head(root.at(f"{prefix}time_embed"), getattr(inputs, f"{prefix}timestep"))
        prompted = root.has(f"{prefix}prompt_adaln.linear.weight")
        cross = root.at(f"av_cross_attn_{name}_scale_shift")
        gate = root.at(f"av_cross_attn_{name}_{('a2v', 'v2a')[index]}_gate")
        streams.append(
            _Stream(
                prefix,
                text,
                ada,
                _head(root.at(f"{prefix}prompt_adaln"), inputs.sigma)[0] if prompted else None,
                _head(cross, inputs.sigma)[0],
                _head(gate, inputs.sigma * gate_factor)[0],
                _tables(bounds, own_maxima[index], widths[index], config),
                _tables(bounds, (shared,), widths[1], config),
            )
        )
        states.append(root.linear(f"{prefix}proj_in", exact(getattr(inputs, name))))
        embedded.append(hidden)
    video, audio = states
    for index in range(config["num_layers"]):
        video, audio = _block(
            root.at(f"transformer_blocks.{index}"),
            heads,
            config["norm_eps"],
            (video, audio),
            (streams[0], streams[1]),
            perturbed=index in inputs.perturbed,
            isolated=inputs.isolated,
        )
    out = []
    for x, hidden, prefix in ((video, embedded[0], ""), (audio, embedded[1], "audio_")):
        shift, scale = (row + hidden for row in root.get(f"{prefix}scale_shift_table"))
        centred = x - x.mean(-1, keepdim=True)
        normed = centred / torch.sqrt((centred * centred).mean(-1, keepdim=True) + _OUT_EPS)
        out.append(root.linear(f"{prefix}proj_out", _modulate(normed, shift, scale)))
    return out[0], out[1]


@dataclass(frozen=True)
class Error:
    """Of an output against the truth. rel_l2: |out - truth| / |truth|. bias: mean of the difference over the truth's
    root mean square. rms_ratio: root mean squares, out over truth.
    """

    rel_l2: float
    bias: float
    rms_ratio: float

    @classmethod
    def of(cls, out: torch.Tensor, truth: torch.Tensor) -> Error:
        out, scale = exact(out), truth.square().mean().sqrt()
        return cls(
            rel_l2=float((out - truth).norm() / truth.norm()),
            bias=float((out - truth).mean() / scale),
            rms_ratio=float(out.square().mean().sqrt() / scale),
        )
