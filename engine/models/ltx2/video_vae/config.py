"""Configuration of the video VAE, read from a diffusers checkpoint folder."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from conformance.errors import bad_field
from engine.configfile import parse

Step = Literal["spatial", "temporal", "spatiotemporal"]
# Change of (time, height, width) by one resampling.
STRIDES: dict[Step, tuple[int, int, int]] = {"spatial": (1, 2, 2), "temporal": (2, 1, 1), "spatiotemporal": (2, 2, 2)}
Padding = Literal["zeros", "reflect"]
# key -> (implemented value, value of an absent key), the latter being diffusers 0.42's default
_FIXED = {
    "timestep_conditioning": (False, False),
    "patch_size_t": (1, 1),
}
# Down blocks are of one class. The epsilon belongs to residual blocks that change the width: refused below.
_UNUSED = frozenset({"down_block_types", "resnet_norm_eps"})


@dataclass(frozen=True, kw_only=True)
class VideoVAEConfig:
    """``vae/config.json``. Encoder fields go from pixels to latents; ``upsample_type`` goes from latents to pixels.

    The other decoder fields go from pixels to latents too: the decoder reads them backwards. The last entry of
    ``layers_per_block`` is the middle block's, of ``decoder_layers_per_block`` also.
    """

    in_channels: int
    out_channels: int
    latent_channels: int
    patch_size: int
    scaling_factor: float
    spatial_compression_ratio: int
    temporal_compression_ratio: int
    encoder_causal: bool
    decoder_causal: bool
    encoder_spatial_padding_mode: Padding
    decoder_spatial_padding_mode: Padding
    block_out_channels: tuple[int, ...]
    layers_per_block: tuple[int, ...]
    spatio_temporal_scaling: tuple[bool, ...]
    downsample_type: tuple[Step, ...]
    decoder_block_out_channels: tuple[int, ...]
    decoder_layers_per_block: tuple[int, ...]
    decoder_spatio_temporal_scaling: tuple[bool, ...]
    decoder_inject_noise: tuple[bool, ...]
    upsample_residual: tuple[bool, ...]
    upsample_factor: tuple[int, ...]
    upsample_type: tuple[Step, ...] = ("spatiotemporal", "spatiotemporal", "spatiotemporal")

    @classmethod
    def load(cls, folder: Path) -> VideoVAEConfig:
        """Read and check ``folder/config.json``. InputError names the file, the key and what was expected."""
        path = folder / "config.json"
        config = parse(cls, path, fixed=_FIXED, unused=_UNUSED)
        _check_values(config, str(path))
        _check_lengths(config, str(path))
        _check_widths(config, str(path))
        _check_ratios(config, str(path))
        return config


def _check_values(config: VideoVAEConfig, where: str) -> None:
    for name, only in (
        ("spatio_temporal_scaling", True),
        ("decoder_spatio_temporal_scaling", True),
        ("decoder_inject_noise", False),
    ):
        if set(getattr(config, name)) != {only}:
            raise bad_field(where, name, getattr(config, name), f"{only} throughout, which is all that is implemented")


def _check_lengths(config: VideoVAEConfig, where: str) -> None:
    for blocks, same, longer in (
        ("block_out_channels", ("spatio_temporal_scaling", "downsample_type"), ("layers_per_block",)),
        (
            "decoder_block_out_channels",
            ("decoder_spatio_temporal_scaling", "upsample_type", "upsample_residual", "upsample_factor"),
            ("decoder_layers_per_block", "decoder_inject_noise"),
        ),
    ):
        count = len(getattr(config, blocks))
        for names, length in ((same, count), (longer, count + 1)):
            for name in names:
                if len(getattr(config, name)) != length:
                    raise bad_field(where, name, getattr(config, name), f"{length} values, as {blocks!r} implies")


def _check_widths(config: VideoVAEConfig, where: str) -> None:
    """Every resampling moves whole channels, and no residual block changes the width."""
    width = config.latent_channels
    for out, kind in zip(config.block_out_channels, config.downsample_type, strict=True):
        volume = math.prod(STRIDES[kind])
        if out % volume or width * volume % out:
            raise bad_field(where, "block_out_channels", config.block_out_channels, f"widths a {kind} step can reach")
        width = out
    channels, factors = config.decoder_block_out_channels[::-1], config.upsample_factor[::-1]
    width = channels[0]
    for out, factor, kind in zip(channels, factors, config.upsample_type, strict=True):
        volume = math.prod(STRIDES[kind])
        if out != width:
            expected = "what the step before leaves ('upsample_factor'); other changes of width are not implemented"
            raise bad_field(where, "decoder_block_out_channels", config.decoder_block_out_channels, expected)
        if width % volume or width % factor or volume % factor:
            raise bad_field(where, "upsample_factor", config.upsample_factor, f"factors that divide a {kind} step")
        width //= factor


def _check_ratios(config: VideoVAEConfig, where: str) -> None:
    for kinds in ("downsample_type", "upsample_type"):
        steps = [STRIDES[kind] for kind in getattr(config, kinds)]
        time, rows = (math.prod(step[axis] for step in steps) for axis in (0, 1))
        for name, ratio in (
            ("temporal_compression_ratio", time),
            ("spatial_compression_ratio", rows * config.patch_size),
        ):
            if getattr(config, name) != ratio:
                raise bad_field(where, name, getattr(config, name), f"{ratio}, as {kinds!r} implies")
