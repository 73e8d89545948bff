"""Configurations of the audio VAE and of the vocoders in the diffusers layout, out of that of an official file."""

from __future__ import annotations

from typing import Any

from conformance.errors import bad_field
from conformance.unpack.fields import REQUIRED, Section

Config = dict[str, Any]
_STEREO_BINS, _STEREO = 128, 2  # 64 mel bins of two channels: all that the configurators build
_KERNELS, _DILATIONS = [3, 7, 11], [[1, 3, 5]] * 3


def audio_vae(config: Section) -> Config:
    """``audio_vae/config.json``. InputError when it is not implemented."""
    parameters = config.section("model").section("params")
    coder = parameters.section("ddconfig")
    spectrum = config.section("preprocessing").section("stft")
    multipliers = coder.integers("ch_mult", [1, 2, 4])
    _check_attention(coder, len(multipliers))
    for name, implemented, absent in (
        ("norm_type", "pixel", "pixel"),
        ("causality_axis", "height", "height"),
        ("dropout", 0.0, 0.0),
        ("mid_block_add_attention", False, True),
        ("double_z", True, True),
        ("resamp_with_conv", True, True),
    ):
        coder.only(name, implemented, absent)
    spectrum.only("causal", True, absent=True)
    return {
        "_class_name": "AutoencoderKLLTX2Audio",
        "base_channels": coder.integer("ch", 128),
        "output_channels": coder.integer("out_ch", 2),
        "ch_mult": multipliers,
        "num_res_blocks": coder.integer("num_res_blocks", 2),
        "attn_resolutions": None,
        "in_channels": coder.integer("in_channels", 2),
        "resolution": coder.integer("resolution", 256),
        "latent_channels": coder.integer("z_channels", 8),
        "norm_type": "pixel",
        "causality_axis": "height",
        "dropout": 0.0,
        "mid_block_add_attention": False,
        "sample_rate": parameters.integer("sampling_rate", 16000),
        "mel_hop_length": spectrum.integer("hop_length", 160),
        "is_causal": True,
        "mel_bins": _mel_bins(config, coder),
        "double_z": True,
    }


def _check_attention(coder: Section, levels: int) -> None:
    """No level has one of the resolutions that ask for attention."""
    wanted = coder.data.get("attn_resolutions", [8, 16, 32])
    used = {coder.integer("resolution", 256) // 2**level for level in range(levels)}
    if wanted and (not isinstance(wanted, list) or used & {*wanted}):
        raise bad_field(
            coder.where, "attn_resolutions", wanted, f"none of {sorted(used)}: attention is not implemented"
        )


def _mel_bins(config: Section, coder: Section) -> int:
    places = (
        (coder, "mel_bins"),
        (config.section("preprocessing").section("mel"), "n_mel_channels"),
        (config.section("variables"), "mel_bins"),
    )
    for section, name in places:
        if section.data.get(name):
            return section.integer(name, REQUIRED)
    raise bad_field(coder.where, "mel_bins", None, "a positive integer")


def vocoder(config: Section) -> Config:
    """``vocoder/config.json`` of LTX-2's one generator, or of LTX-2.3's two. InputError when it is not implemented."""
    if "bwe" not in config.data:
        _check_kind(config, {"resblock": "1", "stereo": True})
        return {
            "_class_name": "LTX2Vocoder",
            **_generator(config, "", snake=False, final="tanh" if config.flag("use_tanh_at_final", True) else "clamp"),
            "output_sampling_rate": config.integer("output_sampling_rate", 24000),
        }
    first, extender = config.section("vocoder"), config.section("bwe")
    for section in (first, extender):
        _check_kind(section, {"resblock": "AMP1", "stereo": True, "activation": "snakebeta"})
    length = extender.integer("n_fft", REQUIRED)
    return {
        "_class_name": "LTX2VocoderWithBWE",
        # as in the released folder; ltx-core clamps what this leaves unbounded
        **_generator(first, "", snake=True, final="tanh" if first.flag("use_tanh_at_final", True) else None),
        **_generator(extender, "bwe_", snake=True, final=None),
        "filter_length": length,
        "window_length": length,
        "hop_length": extender.integer("hop_length", REQUIRED),
        "num_mel_channels": extender.integer("num_mels", REQUIRED),
        "input_sampling_rate": extender.integer("input_sampling_rate", REQUIRED),
        "output_sampling_rate": extender.integer("output_sampling_rate", REQUIRED),
    }


def _check_kind(section: Section, wanted: Config) -> None:
    for name, value in wanted.items():
        section.only(name, value)


def _generator(config: Section, prefix: str, *, snake: bool, final: str | None) -> Config:
    values: Config = {
        "in_channels": _STEREO_BINS,
        "out_channels": _STEREO,
        "hidden_channels": config.integer("upsample_initial_channel", 1024),
        "upsample_kernel_sizes": config.integers("upsample_kernel_sizes", [16, 15, 8, 4, 4]),
        "upsample_factors": config.integers("upsample_rates", [6, 5, 2, 2, 2]),
        "resnet_kernel_sizes": config.integers("resblock_kernel_sizes", _KERNELS),
        "resnet_dilations": config.rows("resblock_dilation_sizes", _DILATIONS),
        "act_fn": "snakebeta" if snake else "leaky_relu",
        "leaky_relu_negative_slope": 0.1,
        "antialias": snake,
        "antialias_ratio": 2,
        "antialias_kernel_size": 12,
        "final_act_fn": final,
        "final_bias": config.flag("use_bias_at_final", True),
    }
    return {f"{prefix}{name}": value for name, value in values.items()}
