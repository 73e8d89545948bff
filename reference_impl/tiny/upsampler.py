"""The spatial latent upsampler, twice the rows and columns: LTX-2's is the rational resampler, LTX-2.3's the plain one.

It is no part of the one-stage pipeline: a checkpoint has it in a folder that its index does not list, as released.
"""

from __future__ import annotations

from typing import Any

from diffusers.pipelines.ltx2.latent_upsampler import LTX2LatentUpsamplerModel

from reference_impl.tiny.fill import fill

_COMMON: dict[str, Any] = {
    "in_channels": 128,
    "mid_channels": 32,
    "num_blocks_per_stage": 1,
    "dims": 3,
    "spatial_upsample": True,
    "temporal_upsample": False,
    "rational_spatial_scale": 2.0,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "ltx-2": _COMMON | {"use_rational_resampler": True},
    "ltx-2.3": _COMMON | {"use_rational_resampler": False},
}


def build(model: str) -> LTX2LatentUpsamplerModel:
    """The filled upsampler of ``ltx-2`` or ``ltx-2.3``, bfloat16. The blur's kernel is a constant."""
    upsampler = LTX2LatentUpsamplerModel(**CONFIGS[model])
    fill(upsampler, f"{model}/latent_upsampler", keep=("kernel",))
    return upsampler
