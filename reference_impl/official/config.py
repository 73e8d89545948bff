"""The configuration JSON of an official single file, from the configurations of a diffusers folder.

The keys are those that the configurators of ltx-core 1.0.0 read, with the values they check.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from conformance.errors import bad_field
from conformance.jsonio import read_json
from conformance.unpack.configs import CHECKED, PROJECTED

Config = Mapping[str, Any]
_SAME_NAME = (
    "num_attention_heads",
    "attention_head_dim",
    "in_channels",
    "out_channels",
    "num_layers",
    "cross_attention_dim",
    "norm_eps",
    "caption_channels",
    "timestep_scale_multiplier",
    "audio_num_attention_heads",
    "audio_attention_head_dim",
    "audio_in_channels",
    "audio_out_channels",
    "audio_cross_attention_dim",
    "rope_type",
)
_STRETCH = {"spatiotemporal": "all", "temporal": "time", "spatial": "space"}


def model_version(folder: Path) -> str:
    """``2.3`` or ``2.0``, as released files record it."""
    return "2.3" if read_json(folder / "transformer" / "config.json").get("cross_attn_mod") else "2.0"


def official_config(folder: Path) -> dict[str, Any]:
    """The configuration of the single file. InputError when the folder's vocoder is of an unknown class."""
    names = ("transformer", "connectors", "vae", "audio_vae", "vocoder")
    configs = {name: read_json(folder / name / "config.json") for name in names}
    return {
        "transformer": _transformer(configs["transformer"], configs["connectors"]),
        "vae": _vae(configs["vae"]),
        "audio_vae": _audio_vae(configs["audio_vae"]),
        "vocoder": _vocoder(configs["vocoder"], f"{folder}: vocoder/config.json"),
    }


def upsampler_config(folder: Path) -> dict[str, Any]:
    """The configuration in the file of a latent upsampler."""
    config = read_json(folder / "latent_upsampler" / "config.json")
    same = ("in_channels", "mid_channels", "num_blocks_per_stage", "dims", "spatial_upsample", "temporal_upsample")
    renamed = {"spatial_scale": "rational_spatial_scale", "rational_resampler": "use_rational_resampler"}
    return {name: config[name] for name in same} | {theirs: config[ours] for theirs, ours in renamed.items()}


def _transformer(dit: Config, connectors: Config) -> dict[str, Any]:
    config = CHECKED | {name: dit[name] for name in _SAME_NAME}
    config |= {
        "positional_embedding_theta": dit["rope_theta"],
        "positional_embedding_max_pos": [dit["pos_embed_max_pos"], dit["base_height"], dit["base_width"]],
        "audio_positional_embedding_max_pos": [dit["audio_pos_embed_max_pos"]],
        "av_ca_timestep_scale_multiplier": dit["cross_attn_timestep_scale_multiplier"],
        "frequencies_precision": "float64" if dit["rope_double_precision"] else "float32",
        "apply_gated_attention": dit["gated_attn"],
        "cross_attention_adaln": dit["cross_attn_mod"],
        "connector_positional_embedding_max_pos": [connectors["connector_rope_base_seq_len"]],
        "connector_apply_gated_attention": connectors["video_gated_attn"],
    }
    for stream, prefix in (("video", ""), ("audio", "audio_")):
        for name in ("num_attention_heads", "attention_head_dim", "num_layers", "num_learnable_registers"):
            config[f"{prefix}connector_{name}"] = connectors[f"{stream}_connector_{name}"]
    return config | (PROJECTED if connectors["per_modality_projections"] else {})


def _vae(vae: Config) -> dict[str, Any]:
    return {
        "dims": 3,
        "in_channels": vae["in_channels"],
        "out_channels": vae["out_channels"],
        "latent_channels": vae["latent_channels"],
        "patch_size": vae["patch_size"],
        "norm_layer": "pixel_norm",
        "latent_log_var": "uniform",
        "encoder_blocks": list(_encoder_blocks(vae)),
        "decoder_blocks": list(_decoder_blocks(vae))[::-1],  # the file lists them from pixels to latents
        "decoder_base_channels": vae["decoder_block_out_channels"][-1] // 8,
        "causal_decoder": vae["decoder_causal"],
        "timestep_conditioning": vae["timestep_conditioning"],
        **_padding(vae),
    }


def _padding(vae: Config) -> dict[str, str]:
    """One key serves both coders; without it the encoder pads with zeros and the decoder reflects."""
    encoder, decoder = vae["encoder_spatial_padding_mode"], vae["decoder_spatial_padding_mode"]
    if encoder == decoder:
        return {"spatial_padding_mode": decoder}
    if (encoder, decoder) == ("zeros", "reflect"):
        return {}
    raise bad_field("vae/config.json", "encoder_spatial_padding_mode", encoder, f"{decoder!r}, as the decoder's")


def _encoder_blocks(vae: Config) -> Iterator[list[Any]]:
    widths = [vae["latent_channels"], *vae["block_out_channels"]]
    for index, kind in enumerate(vae["downsample_type"]):
        yield ["res_x", {"num_layers": vae["layers_per_block"][index]}]
        factor = widths[index + 1] / widths[index]  # of the released models a whole number, which the packages need
        yield [f"compress_{_STRETCH[kind]}_res", {"multiplier": int(factor) if factor.is_integer() else factor}]
    yield ["res_x", {"num_layers": vae["layers_per_block"][-1]}]


def _decoder_blocks(vae: Config) -> Iterator[list[Any]]:
    """From latents to pixels. diffusers lists all but ``upsample_type`` the other way round."""
    layers = vae["decoder_layers_per_block"][::-1]
    yield ["res_x", {"num_layers": layers[0]}]
    parts = (vae["upsample_type"], vae["upsample_factor"][::-1], vae["upsample_residual"][::-1], layers[1:])
    for kind, factor, residual, count in zip(*parts, strict=True):
        yield [f"compress_{_STRETCH[kind]}", {"multiplier": factor, "residual": residual}]
        yield ["res_x", {"num_layers": count}]


def _audio_vae(vae: Config) -> dict[str, Any]:
    coder = {
        "ch": vae["base_channels"],
        "out_ch": vae["output_channels"],
        "z_channels": vae["latent_channels"],
        "attn_resolutions": vae["attn_resolutions"] or [],
    }
    for name in ("ch_mult", "num_res_blocks", "in_channels", "resolution", "norm_type", "causality_axis", "dropout"):
        coder[name] = vae[name]
    for name in ("mid_block_add_attention", "mel_bins", "double_z"):
        coder[name] = vae[name]
    return {
        "model": {"params": {"ddconfig": coder, "sampling_rate": vae["sample_rate"]}},
        "preprocessing": {"stft": {"hop_length": vae["mel_hop_length"], "causal": vae["is_causal"]}},
    }


def _vocoder(vocoder: Config, where: str) -> dict[str, Any]:
    kind = vocoder.get("_class_name")
    if kind == "LTX2Vocoder":
        return _generator(vocoder, "") | {"resblock": "1", "output_sampling_rate": vocoder["output_sampling_rate"]}
    if kind != "LTX2VocoderWithBWE":
        raise bad_field(where, "_class_name", kind, "'LTX2Vocoder' or 'LTX2VocoderWithBWE'")
    snake = {"resblock": "AMP1", "activation": "snakebeta"}
    extension = {
        "n_fft": vocoder["filter_length"],
        "hop_length": vocoder["hop_length"],
        "num_mels": vocoder["num_mel_channels"],
        "input_sampling_rate": vocoder["input_sampling_rate"],
        "output_sampling_rate": vocoder["output_sampling_rate"],
    }
    return {"vocoder": _generator(vocoder, "") | snake, "bwe": _generator(vocoder, "bwe_") | snake | extension}


def _generator(vocoder: Config, prefix: str) -> dict[str, Any]:
    return {
        "stereo": True,
        "resblock_kernel_sizes": vocoder[f"{prefix}resnet_kernel_sizes"],
        "resblock_dilation_sizes": vocoder[f"{prefix}resnet_dilations"],
        "upsample_rates": vocoder[f"{prefix}upsample_factors"],
        "upsample_kernel_sizes": vocoder[f"{prefix}upsample_kernel_sizes"],
        "upsample_initial_channel": vocoder[f"{prefix}hidden_channels"],
        "use_tanh_at_final": vocoder[f"{prefix}final_act_fn"] == "tanh",
        "use_bias_at_final": vocoder[f"{prefix}final_bias"],
    }
