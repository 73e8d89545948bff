"""The video VAE: 32x32 pixels and 8 frames a latent, patches of 4 pixels, 128 latent channels.

LTX-2 decodes through three residual spatiotemporal upsamplings with reflected borders, LTX-2.3 through four (two
spatiotemporal, one temporal, one spatial) without residuals and with zero borders, as released.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_ltx2 import AutoencoderKLLTX2Video
from torch import nn

from reference_impl.tiny.fill import fan_in, fill, normal

_COMMON: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 128,
    "block_out_channels": (16, 16, 32, 32),
    "layers_per_block": (1, 1, 1, 1, 1),
    "spatio_temporal_scaling": (True, True, True, True),
    "downsample_type": ("spatial", "temporal", "spatiotemporal", "spatiotemporal"),
    "timestep_conditioning": False,
    "patch_size": 4,
    "patch_size_t": 1,
    "resnet_norm_eps": 1e-6,
    "scaling_factor": 1.0,
    "encoder_causal": True,
    "decoder_causal": False,
    "encoder_spatial_padding_mode": "zeros",
    "spatial_compression_ratio": 32,
    "temporal_compression_ratio": 8,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "ltx-2": _COMMON
    | {
        "decoder_block_out_channels": (16, 32, 64),
        "decoder_layers_per_block": (1, 1, 1, 1),
        "decoder_spatio_temporal_scaling": (True, True, True),
        "decoder_inject_noise": (False, False, False, False),
        "upsample_type": ("spatiotemporal", "spatiotemporal", "spatiotemporal"),
        "upsample_residual": (True, True, True),
        "upsample_factor": (2, 2, 2),
        "decoder_spatial_padding_mode": "reflect",
    },
    "ltx-2.3": _COMMON
    | {
        "decoder_block_out_channels": (16, 32, 32, 64),
        "decoder_layers_per_block": (1, 1, 1, 1, 1),
        "decoder_spatio_temporal_scaling": (True, True, True, True),
        "decoder_inject_noise": (False, False, False, False, False),
        "upsample_type": ("spatiotemporal", "spatiotemporal", "temporal", "spatial"),
        "upsample_residual": (False, False, False, False),
        "upsample_factor": (2, 2, 1, 2),
        "decoder_spatial_padding_mode": "zeros",
    },
}
# After the last normalisation only the last convolution sets the scale: pixels of standard deviation near 50 of 255.
_OUT_GAIN = {"ltx-2": 0.8, "ltx-2.3": 1.0}
# Share of the variance that the sub-pixels of one upsampled pixel have in common. With none, frames are white noise.
_COMMON_SHARE = 0.95


def _blend(conv: nn.Conv3d, name: str, group: int, gain: float) -> None:
    """Make runs of ``group`` output channels alike: they become the sub-pixels of one pixel."""
    weight_OIFHW = conv.weight.data.double()
    shape = (conv.out_channels // group, *weight_OIFHW.shape[1:])
    common = normal(name, shape, gain * fan_in(conv) ** -0.5).double().repeat_interleave(group, dim=0)
    mixed = common * math.sqrt(_COMMON_SHARE) + weight_OIFHW * math.sqrt(1 - _COMMON_SHARE)
    conv.weight.data = mixed.to(torch.bfloat16)


def build(model: str) -> AutoencoderKLLTX2Video:
    """The filled video VAE of ``ltx-2`` or ``ltx-2.3``, bfloat16."""
    vae = AutoencoderKLLTX2Video(**CONFIGS[model])
    last = "decoder.conv_out.conv"
    fill(vae, f"{model}/vae", gains={last: _OUT_GAIN[model]})
    for name, module in vae.named_modules():
        if name == last:
            _blend(module, f"{model}/vae/{name}.common", CONFIGS[model]["patch_size"] ** 2, _OUT_GAIN[model])
        elif name.startswith("decoder.") and name.endswith("upsamplers.0"):
            _blend(module.conv.conv, f"{model}/vae/{name}.common", math.prod(module.stride), 1.0)
    return vae
