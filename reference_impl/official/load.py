"""The modules of the official packages with the weights of a diffusers folder. ``packages.install`` comes first.

Weights go through the names of the official single file and the packages' own renaming of them, then are loaded
strictly: every parameter once.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from conformance import checkpoint
from conformance.errors import InputError
from engine.models.ltx2 import mapping
from reference_impl.official import versions
from reference_impl.official.config import official_config
from reference_impl.official.lora import merged
from reference_impl.official.quantization import FP8, fp8_cast
from reference_impl.official.upsampler import FOLDER as UPSAMPLER
from reference_impl.official.upsampler import upsampler_config

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Modules:
    """transformer: ``X0Model``. embeddings: ``EmbeddingsProcessor``. text_encoder: ``GemmaTextEncoder``.

    video_encoder and upsampler are None where the case does without.
    """

    transformer: Any
    embeddings: Any
    text_encoder: Any
    video_encoder: Any
    upsampler: Any
    video_decoder: Any
    audio_decoder: Any
    vocoder: Any
    blocks: int


def single_file(folder: Path) -> Tensors:
    """The tensors of a diffusers folder under the names of the official single file, as stored, on the CPU."""
    return mapping.to_official({name: stored(folder, name) for name in mapping.COMPONENTS})


def stored(folder: Path, component: str) -> Tensors:
    """The tensors of one component under the names of the diffusers layout, as stored, on the CPU."""
    files = sorted((folder / component).glob("*.safetensors"))
    return {key: tensor for path in files for key, tensor in load_file(path).items()}


def load_transformer(folder: Path, dtype: str, device: str, lora: float, quantization: str = "none") -> Any:
    """The ``X0Model``, the folder's distilled LoRA merged into it at a strength; 0.0 is none. InputError as below.

    quantization: ``none`` or ``fp8-cast``, the latter without a LoRA.
    """
    from ltx_core.model import transformer

    config = official_config(folder)
    with torch.device("meta"):
        dit = versions.installed().configured(transformer.LTXModelConfigurator, config)
    weights = _renamed(single_file(folder), transformer.LTXV_MODEL_COMFY_RENAMING_MAP)
    if lora:
        weights = {key: tensor.to(device) for key, tensor in weights.items()}
        weights = merged(weights, checkpoint.distilled_lora(folder), lora, DTYPES[dtype])
    if quantization != "none":
        weights = fp8_cast(dit, weights)
    return transformer.X0Model(_filled(dit, weights, DTYPES[dtype], device))


def load(
    folder: Path,
    dtype: str,
    device: str,
    text_tokens: int,
    *,
    lora: float = 0.0,
    image: bool = False,
    second: bool = False,
    quantization: str = "none",
) -> Modules:
    """All modules in ``dtype`` (``fp32`` or ``bf16``) on ``device``; prompts are padded to ``text_tokens``.

    lora, quantization: see ``load_transformer``. image, second: there is a given frame, a second stage. InputError when
    weights and modules do not fit, or something that is needed is not there.
    """
    from ltx_core.model import audio_vae, upsampler, video_vae
    from ltx_core.text_encoders.gemma.encoders import encoder_configurator as gemma

    api, tensors, config = versions.installed(), single_file(folder), official_config(folder)

    def filled(module: nn.Module, names: Any) -> Any:
        return _filled(module, _renamed(tensors, names), DTYPES[dtype], device)

    with torch.device("meta"):
        encoder = _video_encoder(config) if image or second else None
        decoder = api.configured(video_vae.VideoDecoderConfigurator, config)
        audio_decoder = api.configured(audio_vae.AudioDecoderConfigurator, config)
        embeddings = _embeddings(config["transformer"], tensors)
        larger = api.configured(upsampler.LatentUpsamplerConfigurator, upsampler_config(folder)) if second else None
    return Modules(
        transformer=load_transformer(folder, dtype, device, lora, quantization),
        embeddings=filled(embeddings, gemma.EMBEDDINGS_PROCESSOR_KEY_OPS),
        text_encoder=_text_encoder(folder, DTYPES[dtype], device, text_tokens),
        video_encoder=None if encoder is None else filled(encoder, video_vae.VAE_ENCODER_COMFY_KEYS_FILTER),
        upsampler=None if larger is None else _filled(larger, stored(folder, UPSAMPLER), DTYPES[dtype], device),
        video_decoder=filled(decoder, video_vae.VAE_DECODER_COMFY_KEYS_FILTER),
        audio_decoder=filled(audio_decoder, audio_vae.AUDIO_VAE_DECODER_COMFY_KEYS_FILTER),
        vocoder=filled(_vocoder(config), audio_vae.VOCODER_COMFY_KEYS_FILTER),
        blocks=config["transformer"]["num_layers"],
    )


def _renamed(tensors: Tensors, names: Any) -> Tensors:
    """The tensors that the packages' ``SDOps`` select, as it renames them."""
    found: Tensors = {}
    for key, tensor in tensors.items():
        name = names.apply_to_key(key)
        if name is not None:
            found |= {item.new_key: item.new_value for item in names.apply_to_key_value(name, tensor)}
    # the connectors' names begin like the transformer's
    return {key: value for key, value in found.items() if "_embeddings_connector." not in key}


def _filled(module: nn.Module, tensors: Tensors, dtype: torch.dtype, device: str) -> nn.Module:
    copies = {
        key: tensor.to(device=device, dtype=tensor.dtype if tensor.dtype == FP8 else dtype, copy=True)
        for key, tensor in tensors.items()
    }
    try:
        module.load_state_dict(copies, strict=True, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"official {type(module).__name__}: weights do not fit ({reason})") from None
    return module.to(device).eval().requires_grad_(False)


def _embeddings(config: dict[str, Any], tensors: Tensors) -> Any:
    """Feature extractor and connectors. The packages' configurator fixes the sizes of the released text encoder."""
    from ltx_core.model.transformer.rope import LTXRopeType
    from ltx_core.text_encoders.gemma import embeddings_connector, embeddings_processor, feature_extractor

    def connector(prefix: str) -> Any:
        return embeddings_connector.Embeddings1DConnector(
            num_attention_heads=config[f"{prefix}connector_num_attention_heads"],
            attention_head_dim=config[f"{prefix}connector_attention_head_dim"],
            num_layers=config[f"{prefix}connector_num_layers"],
            num_learnable_registers=config[f"{prefix}connector_num_learnable_registers"],
            positional_embedding_max_pos=config["connector_positional_embedding_max_pos"],
            rope_type=LTXRopeType(config["rope_type"]),
            double_precision_rope=config["frequencies_precision"] == "float64",
            apply_gated_attention=config["connector_apply_gated_attention"],
        )

    def projection(stream: str) -> nn.Linear:
        name = f"text_embedding_projection.{stream}aggregate_embed."
        width, features = tensors[f"{name}weight"].shape
        return nn.Linear(features, width, bias=f"{name}bias" in tensors)

    extractor: Any
    if "caption_proj_before_connector" in config:
        extractor = feature_extractor.FeatureExtractorV2(
            projection("video_"), config["caption_channels"], projection("audio_")
        )
    else:
        extractor = feature_extractor.FeatureExtractorV1(projection(""), is_av=True)
    return embeddings_processor.EmbeddingsProcessor(
        feature_extractor=extractor, video_connector=connector(""), audio_connector=connector("audio_")
    )


class _Share(float):
    """A factor below 1 by which whole channels remain whole."""

    def __rmul__(self, channels: float) -> Any:
        return round(channels * float(self))


def _video_encoder(config: dict[str, Any]) -> Any:
    """The packages take whole factors from one width to the next; a tiny encoder is narrower than its latents."""
    from ltx_core.model.video_vae import VideoEncoderConfigurator

    blocks = [
        [name, {key: _Share(value) if isinstance(value, float) else value for key, value in block.items()}]
        for name, block in config["vae"]["encoder_blocks"]
    ]
    fitting = config | {"vae": config["vae"] | {"encoder_blocks": blocks}}
    return versions.installed().configured(VideoEncoderConfigurator, fitting)


def _vocoder(config: dict[str, Any]) -> Any:
    """The packages build three dilations a residual block; where the checkpoint has fewer, the rest is removed."""
    from ltx_core.model.audio_vae import VocoderConfigurator

    generators = [config["vocoder"]] if "bwe" not in config["vocoder"] else list(config["vocoder"].values())
    counts = {len(dilations) for each in generators for dilations in each["resblock_dilation_sizes"]}
    if len(counts) != 1:
        raise InputError(f"official vocoder: residual blocks have {sorted(counts)} dilations; expected one number")
    (count,) = counts
    for each in generators:
        sizes = each["resblock_dilation_sizes"]
        each["resblock_dilation_sizes"] = [[*dilations, *[1] * (3 - count)] for dilations in sizes]
    vocoder = versions.installed().configured(VocoderConfigurator, config)
    for block in vocoder.modules():
        for name in ("convs1", "convs2", "acts1", "acts2"):
            if hasattr(block, name):
                setattr(block, name, getattr(block, name)[:count])
    return vocoder


def _text_encoder(folder: Path, dtype: torch.dtype, device: str, text_tokens: int) -> Any:
    from transformers import Gemma3ForConditionalGeneration

    found: Any = Gemma3ForConditionalGeneration.from_pretrained(
        folder / "text_encoder", dtype=dtype, use_safetensors=True, local_files_only=True, output_loading_info=True
    )
    gemma, report = found
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report[problem]:
            name = sorted(map(str, report[problem]))[0]
            raise InputError(f"{folder}: text_encoder: {problem.replace('_', ' ')}, the first is {name}")
    for tensor in (*gemma.parameters(), *gemma.buffers()):  # out of the mapped file, whose alignment picks GEMMs
        tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)
    return versions.installed().text_encoder(gemma.to(device).eval(), folder / "tokenizer", text_tokens, dtype)
