"""Configurations of the video VAE and of the latent upsampler in the diffusers layout, out of official ones."""

from __future__ import annotations

import math
from typing import Any

from conformance.errors import bad_field
from conformance.unpack.fields import REQUIRED, Section

Config = dict[str, Any]
_STRETCH = {"space": "spatial", "time": "temporal", "all": "spatiotemporal"}
_STRIDES = {"spatial": (1, 2), "temporal": (2, 1), "spatiotemporal": (2, 2)}  # of time, and of rows and columns
_PADDING = ("zeros", "reflect")


def video_vae(config: Section) -> Config:
    """``vae/config.json``. InputError when it is not implemented."""
    for name, implemented, absent in (
        ("dims", 3, 3),
        ("norm_layer", "pixel_norm", "pixel_norm"),
        ("latent_log_var", "uniform", "uniform"),
        ("timestep_conditioning", False, True),
    ):
        config.only(name, implemented, absent)
    patch, latents = config.integer("patch_size", 4), config.integer("latent_channels", 128)
    down, encoder_layers, multipliers = _blocks(config, "encoder_blocks", "_res", 2)
    widths = [latents]
    for multiplier in multipliers:
        widths.append(_width(config, "encoder_blocks", widths[-1] * multiplier))
    up, decoder_layers, factors = _blocks(config, "decoder_blocks", "", 1)
    outs = [config.integer("decoder_base_channels", 128) * 8]
    for factor in factors[::-1]:  # the file lists blocks from pixels to latents
        outs.append(_width(config, "decoder_blocks", outs[-1] / factor))
    strides = [_STRIDES[kind] for kind in down]
    return {
        "_class_name": "AutoencoderKLLTX2Video",
        "in_channels": config.integer("in_channels", 3),
        "out_channels": config.integer("out_channels", 3),
        "latent_channels": latents,
        "block_out_channels": widths[1:],
        "down_block_types": ["LTX2VideoDownBlock3D"] * len(down),
        "layers_per_block": encoder_layers,
        "spatio_temporal_scaling": [True] * len(down),
        "downsample_type": down,
        "decoder_block_out_channels": outs[-2::-1],
        "decoder_layers_per_block": decoder_layers,
        "decoder_spatio_temporal_scaling": [True] * len(up),
        "decoder_inject_noise": [False] * (len(up) + 1),
        "upsample_type": up[::-1],
        "upsample_residual": _residuals(config),
        "upsample_factor": [_width(config, "decoder_blocks", factor) for factor in factors],
        "timestep_conditioning": False,
        "patch_size": patch,
        "patch_size_t": 1,
        "resnet_norm_eps": 1e-6,
        "scaling_factor": 1.0,
        "encoder_causal": True,
        "decoder_causal": config.flag("causal_decoder", False),
        "encoder_spatial_padding_mode": _padding(config, "zeros"),
        "decoder_spatial_padding_mode": _padding(config, "reflect"),
        "spatial_compression_ratio": patch * math.prod(rows for _, rows in strides),
        "temporal_compression_ratio": math.prod(time for time, _ in strides),
    }


def _blocks(config: Section, name: str, suffix: str, multiplier: int) -> tuple[list[str], list[int], list[float]]:
    """Kinds of the resamplings, residual layers around them, and factors of width, in the order of the file.

    multiplier: what an absent one stands for.
    """
    pairs = _pairs(config, name)
    kinds, layers, factors = [], [], []
    for index, (kind, parameters) in enumerate(pairs):
        if index % 2 == 0:
            if kind != "res_x":
                raise bad_field(
                    config.where, f"{name}[{index}]", kind, "'res_x', which is all that is implemented there"
                )
            parameters.only("inject_noise", False, absent=False)
            layers.append(parameters.integer("num_layers", REQUIRED))
            continue
        known = {f"compress_{word}{suffix}": stretch for word, stretch in _STRETCH.items()}
        if kind not in known:
            raise bad_field(
                config.where, f"{name}[{index}]", kind, f"one of {tuple(known)}, which are implemented there"
            )
        kinds.append(known[kind])
        factors.append(parameters.number("multiplier", multiplier))
    if len(pairs) % 2 == 0 or len(pairs) < 3:
        raise bad_field(config.where, name, f"{len(pairs)} blocks", "residual and resampling blocks in turn")
    return kinds, layers, factors


def _pairs(config: Section, name: str) -> list[tuple[str, Section]]:
    blocks = config.data.get(name, [])
    if not isinstance(blocks, list) or not all(_is_pair(block) for block in blocks):
        raise bad_field(config.where, name, blocks, "a list of [kind, parameters]")
    found = []
    for index, (kind, parameters) in enumerate(blocks):
        values = {"num_layers": parameters} if type(parameters) is int else parameters
        if not isinstance(values, dict):
            raise bad_field(config.where, f"{name}[{index}]", parameters, "an object or a number of layers")
        found.append((kind, Section(f"{config.where}.{name}[{index}]", values)))
    return found


def _is_pair(block: Any) -> bool:
    return isinstance(block, list) and len(block) == 2 and isinstance(block[0], str)


def _residuals(config: Section) -> list[bool]:
    """Of upsamplings, from pixels to latents; the configurators read it for ``compress_all`` alone."""
    resamplings = _pairs(config, "decoder_blocks")[1::2]
    return [kind == "compress_all" and block.flag("residual", False) for kind, block in resamplings]


def _width(config: Section, name: str, value: float) -> int:
    if not float(value).is_integer():
        raise bad_field(config.where, name, value, "multipliers that make whole numbers of channels")
    return int(value)


def _padding(config: Section, absent: str) -> str:
    value = config.data.get("spatial_padding_mode", absent)
    if value not in _PADDING:
        raise bad_field(config.where, "spatial_padding_mode", value, f"one of {_PADDING}")
    return value


def upsampler(config: Section) -> Config:
    """``latent_upsampler/config.json``. InputError when it is not implemented."""
    for name, implemented in (("dims", 3), ("spatial_upsample", True), ("temporal_upsample", False)):
        config.only(name, implemented, absent=implemented)
    return {
        "_class_name": "LTX2LatentUpsamplerModel",
        "in_channels": config.integer("in_channels", 128),
        "mid_channels": config.integer("mid_channels", 512),
        "num_blocks_per_stage": config.integer("num_blocks_per_stage", 4),
        "dims": 3,
        "spatial_upsample": True,
        "temporal_upsample": False,
        "rational_spatial_scale": config.number("spatial_scale", 2.0),
        "use_rational_resampler": config.flag("rational_resampler", False),
    }
