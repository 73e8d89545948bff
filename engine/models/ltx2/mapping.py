"""Names of LTX-2 and LTX-2.3 weights: the official single file and the diffusers folder, one to one in both directions.

Layouts: the released ``.safetensors`` of Lightricks/LTX-2 (2026-03), and diffusers 0.42.1. Tensors are the same in
both, only their names differ. The text encoder is a folder of its own in both layouts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from conformance.errors import InputError

T = TypeVar("T")

# Components of a diffusers folder that the single file holds.
COMPONENTS = ("transformer", "connectors", "vae", "audio_vae", "vocoder")
# In released files, and read by nobody: statistics of other moments.
UNUSED = frozenset(
    f"{vae}.per_channel_statistics.{name}"
    for vae in ("vae", "audio_vae")
    for name in ("channel", "mean-of-stds", "mean-of-stds_over_std-of-means")
)

_AFFINE = r"\.(?:weight|bias)"
_ADALN = rf"(?:\.emb\.timestep_embedder\.linear_[12]|\.linear){_AFFINE}"
_FEED_FORWARD = rf"\.net\.(?:0\.proj|2){_AFFINE}"
_PROJECTIONS = rf"\.(?:to_[qkv]|to_out\.0|to_gate_logits){_AFFINE}"
_CONVOLUTIONS = rf"\.conv[12]\.conv{_AFFINE}"
_ACTIVATION = r"\.(?:act\.(?:alpha|beta)|(?:up|down)sample\.filter)"
_DOWN_BLOCKS = _UP_BLOCKS = 4  # of the video VAE; LTX-2 has one up block less


@dataclass(frozen=True)
class _Rule:
    """Names that are ``head`` then one of ``tail``. ``#`` stands for the same index on both sides."""

    component: str
    official: str
    diffusers: str
    tail: str = ""

    @cached_property
    def from_official(self) -> re.Pattern[str]:
        return _pattern(self.official, self._official_tail)

    @cached_property
    def from_diffusers(self) -> re.Pattern[str]:
        return _pattern(self.diffusers, self.tail)

    @property
    def _official_tail(self) -> str:
        # diffusers keeps the low-pass filter of a downsampling in the module itself
        return self.tail.replace(r"(?:up|down)sample\.filter", r"(?:upsample|downsample\.lowpass)\.filter")

    def to_diffusers(self, key: str) -> str | None:
        match = self.from_official.fullmatch(key)
        return match and _fill(self.diffusers, match).replace(".downsample.lowpass.", ".downsample.")

    def to_official(self, key: str) -> str | None:
        match = self.from_diffusers.fullmatch(key)
        return match and _fill(self.official, match).replace(".downsample.filter", ".downsample.lowpass.filter")


def _pattern(head: str, tail: str) -> re.Pattern[str]:
    return re.compile(re.escape(head).replace(r"\#", r"(\d+)") + f"(?P<tail>{tail})")


def _fill(head: str, match: re.Match[str]) -> str:
    for index in match.groups()[: head.count("#")]:
        head = head.replace("#", index, 1)
    return head + match["tail"]


def _attention(component: str, official: str, diffusers: str) -> Iterator[_Rule]:
    yield _Rule(component, official, diffusers, _PROJECTIONS)
    for side in "qk":
        yield _Rule(component, f"{official}.{side}_norm.weight", f"{diffusers}.norm_{side}.weight")


def _transformer() -> Iterator[_Rule]:
    root = "model.diffusion_model."
    names = {
        "patchify_proj": ("proj_in", _AFFINE),
        "proj_out": ("proj_out", _AFFINE),
        "adaln_single": ("time_embed", _ADALN),
        "prompt_adaln_single": ("prompt_adaln", _ADALN),
        "caption_projection": ("caption_projection", rf"\.linear_[12]{_AFFINE}"),
        "scale_shift_table": ("scale_shift_table", ""),
    }
    for official, (diffusers, tail) in names.items():
        for stream in ("", "audio_"):
            yield _Rule("transformer", root + stream + official, stream + diffusers, tail)
    for official, diffusers in (
        ("video_scale_shift", "video_scale_shift"),
        ("audio_scale_shift", "audio_scale_shift"),
        ("a2v_gate", "video_a2v_gate"),
        ("v2a_gate", "audio_v2a_gate"),
    ):
        yield _Rule("transformer", f"{root}av_ca_{official}_adaln_single", f"av_cross_attn_{diffusers}", _ADALN)
    block = "transformer_blocks.#."
    for name in ("attn1", "attn2", "audio_attn1", "audio_attn2", "audio_to_video_attn", "video_to_audio_attn"):
        yield from _attention("transformer", root + block + name, block + name)
    for stream in ("", "audio_"):
        yield _Rule("transformer", f"{root}{block}{stream}ff", f"{block}{stream}ff", _FEED_FORWARD)
        for table in ("scale_shift_table", "prompt_scale_shift_table"):
            yield _Rule("transformer", root + block + stream + table, block + stream + table)
    for stream in ("video", "audio"):
        tables = f"scale_shift_table_a2v_ca_{stream}", f"{stream}_a2v_cross_attn_scale_shift_table"
        yield _Rule("transformer", root + block + tables[0], block + tables[1])


def _connectors() -> Iterator[_Rule]:
    for stream in ("", "video_", "audio_"):
        projections = f"text_embedding_projection.{stream}aggregate_embed", f"{stream}text_proj_in"
        yield _Rule("connectors", *projections, _AFFINE)
    for stream in ("video", "audio"):
        official = f"model.diffusion_model.{stream}_embeddings_connector."
        diffusers = f"{stream}_connector."
        yield _Rule("connectors", f"{official}learnable_registers", f"{diffusers}learnable_registers")
        block = f"{official}transformer_1d_blocks.#.", f"{diffusers}transformer_blocks.#."
        yield from _attention("connectors", f"{block[0]}attn1", f"{block[1]}attn1")
        yield _Rule("connectors", f"{block[0]}ff", f"{block[1]}ff", _FEED_FORWARD)


def _statistics(component: str) -> Iterator[_Rule]:
    for official, diffusers in (("mean-of-means", "latents_mean"), ("std-of-means", "latents_std")):
        yield _Rule(component, f"{component}.per_channel_statistics.{official}", diffusers)


def _vae() -> Iterator[_Rule]:
    """One flat list of blocks in the official file: residual and resampling blocks in turn."""
    yield from _statistics("vae")
    for coder in ("encoder.", "decoder."):
        for name in ("conv_in", "conv_out"):
            yield _Rule("vae", f"vae.{coder}{name}", f"{coder}{name}", rf"\.conv{_AFFINE}")
    down, up = "encoder.down_blocks.", "decoder.up_blocks."
    residual = [(f"{down}{2 * i}", f"{down}{i}") for i in range(_DOWN_BLOCKS)]
    residual += [(f"{down}{2 * _DOWN_BLOCKS}", "encoder.mid_block"), (f"{up}0", "decoder.mid_block")]
    residual += [(f"{up}{2 * i + 2}", f"{up}{i}") for i in range(_UP_BLOCKS)]
    for official, diffusers in residual:
        yield _Rule("vae", f"vae.{official}.res_blocks.#", f"{diffusers}.resnets.#", _CONVOLUTIONS)
    resampling = [(f"{down}{2 * i + 1}", f"{down}{i}.downsamplers.0") for i in range(_DOWN_BLOCKS)]
    resampling += [(f"{up}{2 * i + 1}", f"{up}{i}.upsamplers.0") for i in range(_UP_BLOCKS)]
    for official, diffusers in resampling:
        yield _Rule("vae", f"vae.{official}", diffusers, rf"\.conv\.conv{_AFFINE}")


def _audio_vae() -> Iterator[_Rule]:
    yield from _statistics("audio_vae")
    for coder, way in (("encoder.", "down"), ("decoder.", "up")):
        for name in ("conv_in", "conv_out"):
            yield _Rule("audio_vae", f"audio_vae.{coder}{name}", f"{coder}{name}", rf"\.conv{_AFFINE}")
        for name in ("mid.block_1", "mid.block_2", f"{way}.#.block.#"):
            tail = rf"(?:\.conv[12]|\.nin_shortcut)\.conv{_AFFINE}"
            yield _Rule("audio_vae", f"audio_vae.{coder}{name}", f"{coder}{name}", tail)
        name = f"{coder}{way}.#.{way}sample"
        yield _Rule("audio_vae", f"audio_vae.{name}", name, rf"\.conv(?:\.conv)?{_AFFINE}")


def _vocoder() -> Iterator[_Rule]:
    """LTX-2: one generator. LTX-2.3: two, and the spectrogram between them."""
    for stage in ("", "vocoder.", "bwe_generator."):
        official = f"vocoder.{stage}"
        for theirs, ours, tail in (
            ("conv_pre", "conv_in", _AFFINE),
            ("conv_post", "conv_out", _AFFINE),
            ("ups.#", "upsamplers.#", _AFFINE),
            ("resblocks.#", "resnets.#", rf"\.convs[12]\.\d+{_AFFINE}"),
            ("resblocks.#", "resnets.#", rf"\.acts[12]\.\d+{_ACTIVATION}"),
            ("act_post", "act_out", _ACTIVATION),
        ):
            yield _Rule("vocoder", official + theirs, stage + ours, tail)
    for name in ("mel_basis", "stft_fn.forward_basis", "stft_fn.inverse_basis"):
        yield _Rule("vocoder", f"vocoder.mel_stft.{name}", f"mel_stft.{name}")


_RULES = (*_transformer(), *_connectors(), *_vae(), *_audio_vae(), *_vocoder())


def diffusers_name(key: str) -> tuple[str, str]:
    """Component and name in the diffusers layout of an official name. InputError for a name that is not known."""
    for rule in _RULES:
        name = rule.to_diffusers(key)
        if name is not None:
            return rule.component, name
    raise InputError(f"official checkpoint: tensor {key!r} is not known; expected names of LTX-2 or LTX-2.3")


def official_name(component: str, key: str) -> str:
    """The official name of a component's tensor. InputError for a name that is not known."""
    for rule in _RULES:
        name = rule.to_official(key) if rule.component == component else None
        if name is not None:
            return name
    raise InputError(f"diffusers checkpoint: {component}: tensor {key!r} is not known; expected names of diffusers")


def to_diffusers(tensors: Mapping[str, T]) -> dict[str, dict[str, T]]:
    """Everything of an official file by component and name of the diffusers layout; ``UNUSED`` names are dropped.

    InputError names the first key that is not known and the first component of which there is nothing.
    """
    components: dict[str, dict[str, T]] = {name: {} for name in COMPONENTS}
    for key in sorted(tensors.keys() - UNUSED):
        component, name = diffusers_name(key)
        components[component][name] = tensors[key]
    for component, found in components.items():
        if not found:
            raise InputError(f"official checkpoint: no tensor of component {component!r}")
    return components


def to_official(components: Mapping[str, Mapping[str, T]]) -> dict[str, T]:
    """The inverse of ``to_diffusers``. InputError names the first key that is not known."""
    return {
        official_name(component, key): components[component][key]
        for component in COMPONENTS
        for key in sorted(components.get(component, {}))
    }
