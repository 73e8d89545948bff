"""The same tiny weights in the engine and in diffusers, and one set of inputs for both."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import torch
from diffusers import LTX2VideoTransformer3DModel
from diffusers.pipelines.ltx2 import LTX2TextConnectors

from conformance.case import Case, Guidance, Layout, Request
from engine.models.ltx2 import positions, weights
from engine.models.ltx2.config import ConnectorsConfig, TransformerConfig
from engine.models.ltx2.connectors import LTX2Connectors
from engine.models.ltx2.transformer import LTX2Transformer, ModelInputs
from engine.numerics import Numerics
from reference_impl.diffusers_load import realigned
from reference_impl.tiny.build import cached

MODELS = ("ltx-2", "ltx-2.3")
DTYPES = (torch.float32, torch.bfloat16)
CPU = torch.device("cpu")
DIFFUSERS = Numerics.diffusers()
OFF = Guidance(cfg=1.0, stg=0.0, modality=1.0, rescale=0.0)


@cache
def engine_dit(model: str, dtype: torch.dtype) -> LTX2Transformer:
    folder = cached(model) / "transformer"
    return weights.load(partial(LTX2Transformer, TransformerConfig.load(folder)), folder, dtype, CPU)


@cache
def engine_connectors(model: str, dtype: torch.dtype) -> LTX2Connectors:
    folder = cached(model) / "connectors"
    return weights.load(partial(LTX2Connectors, ConnectorsConfig.load(folder)), folder, dtype, CPU)


@cache
def diffusers_dit(model: str, dtype: torch.dtype) -> Any:
    return realigned(LTX2VideoTransformer3DModel.from_pretrained(cached(model) / "transformer", dtype=dtype)).eval()


@cache
def diffusers_connectors(model: str, dtype: torch.dtype) -> Any:
    return realigned(LTX2TextConnectors.from_pretrained(cached(model) / "connectors", dtype=dtype)).eval()


def dit_inputs(
    model: str,
    dtype: torch.dtype,
    *,
    batch: int = 1,
    shape_FHW: tuple[int, int, int] = (3, 3, 5),
    audio_tokens: int = 9,
    text_tokens: int = 13,
    frame_rate: float = 24.0,
    **changes: Any,
) -> ModelInputs:
    """Random states and text, one noise level for the whole batch."""
    config = engine_dit(model, dtype).config
    generator = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(dtype)

    widths = (config.width, config.audio_width)
    if config.use_prompt_embeddings:
        widths = (config.caption_channels, config.caption_channels)
    level = (torch.tensor(0.7317) * 1000).expand(batch)
    values = {
        "video": draw(batch, shape_FHW[0] * shape_FHW[1] * shape_FHW[2], config.in_channels),
        "audio": draw(batch, audio_tokens, config.audio_in_channels),
        "video_text": draw(batch, text_tokens, widths[0]),
        "audio_text": draw(batch, text_tokens, widths[1]),
        "text_mask": torch.ones(batch, text_tokens, dtype=torch.int64),
        "timestep": level,
        "audio_timestep": level,
        "sigma": level,
        "video_bounds": positions.video_bounds(shape_FHW, frame_rate, batch, config, CPU),
        "audio_bounds": positions.audio_bounds(audio_tokens, batch, config, CPU),
    }
    return ModelInputs(**(values | changes))


def diffusers_forward(model: Any, inputs: ModelInputs, *, use_cross_timestep: bool = True) -> tuple[torch.Tensor, ...]:
    with torch.inference_mode():
        return model(
            hidden_states=inputs.video,
            audio_hidden_states=inputs.audio,
            encoder_hidden_states=inputs.video_text,
            audio_encoder_hidden_states=inputs.audio_text,
            timestep=inputs.timestep,
            audio_timestep=inputs.audio_timestep,
            sigma=inputs.sigma,
            encoder_attention_mask=inputs.text_mask,
            audio_encoder_attention_mask=inputs.text_mask,
            video_coords=inputs.video_bounds,
            audio_coords=inputs.audio_bounds,
            isolate_modalities=inputs.isolated,
            spatio_temporal_guidance_blocks=list(inputs.stg_blocks) or None,
            use_cross_timestep=use_cross_timestep,
            return_dict=False,
        )


def tiny_request(**changes: Any) -> Request:
    values: dict[str, Any] = {
        "prompts": ("a cat runs",),
        "negative_prompts": ("bad",),
        "height": 64,
        "width": 96,
        "num_frames": 9,
        "frame_rate": 24.0,
        "steps": 2,
        "sigmas": (1.0, 0.4),
        "seed": 7,
        "text_tokens": 32,
        "video_guidance": OFF,
        "audio_guidance": OFF,
        "stg_blocks": (),
        "skip_v2a": False,
        "image": None,
        "second": None,
        "vae_tiling": None,
    }
    return Request(**(values | changes))


def tiny_case(model: str, dtype: str, request: Request, **changes: Any) -> Case:
    values: dict[str, Any] = {
        "model": model,
        "pipeline": "one-stage-t2v",
        "variant": "unit",
        "layout": Layout.single(),
        "numerics": "diffusers",
        "overrides": (),
        "dtype": dtype,
        "quantization": "checkpoint",
        "kernels": "off",
        "checkpoint": "tiny",
        "request": request,
        "suites": (),
    }
    return Case(**(values | changes))


ALL_GUIDANCE: dict[str, Any] = {
    "video_guidance": Guidance(cfg=3.0, stg=1.0, modality=3.0, rescale=0.7),
    "audio_guidance": Guidance(cfg=7.0, stg=1.0, modality=3.0, rescale=0.7),
    "stg_blocks": (1,),
}
