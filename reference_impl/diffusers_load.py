"""Load a checkpoint folder through diffusers and transformers, strictly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from conformance import guard

guard.install()

import torch  # noqa: E402
from diffusers.models.autoencoders.autoencoder_kl_ltx2 import AutoencoderKLLTX2Video  # noqa: E402
from diffusers.models.autoencoders.autoencoder_kl_ltx2_audio import AutoencoderKLLTX2Audio  # noqa: E402
from diffusers.models.transformers.transformer_ltx2 import LTX2VideoTransformer3DModel  # noqa: E402
from diffusers.pipelines.ltx2.connectors import LTX2TextConnectors  # noqa: E402
from diffusers.pipelines.ltx2.latent_upsampler import LTX2LatentUpsamplerModel  # noqa: E402
from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder, LTX2VocoderWithBWE  # noqa: E402
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler  # noqa: E402
from transformers import AutoTokenizer, Gemma3ForConditionalGeneration  # noqa: E402
from transformers.utils import logging as transformers_logging  # noqa: E402

from conformance import checkpoint  # noqa: E402
from conformance.errors import InputError, bad_field  # noqa: E402
from conformance.jsonio import read_json  # noqa: E402
from reference_impl.diffusers_taps import TracedPipeline  # noqa: E402

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_VOCODERS = {cls.__name__: cls for cls in (LTX2Vocoder, LTX2VocoderWithBWE)}


def load(folder: Path, dtype: str, device: str) -> TracedPipeline:
    """The pipeline of a verified checkpoint folder, weights in ``dtype`` (``fp32`` or ``bf16``) on ``device``.

    InputError when the folder is damaged or its weights are not exactly those its configurations ask for; diffusers
    alone would draw the missing ones at random. No network is used.
    """
    checkpoint.verify(folder)
    classes = {
        "transformer": LTX2VideoTransformer3DModel,
        "connectors": LTX2TextConnectors,
        "text_encoder": Gemma3ForConditionalGeneration,
        "vae": AutoencoderKLLTX2Video,
        "audio_vae": AutoencoderKLLTX2Audio,
        "vocoder": _VOCODERS[_class_name(folder, "vocoder/config.json", tuple(_VOCODERS))],
    }
    _class_name(folder, "scheduler/scheduler_config.json", ("FlowMatchEulerDiscreteScheduler",))
    pipeline = TracedPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler.from_pretrained(folder / "scheduler", local_files_only=True),
        tokenizer=AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True),
        **{name: _module(folder, name, cls, DTYPES[dtype]).to(device) for name, cls in classes.items()},
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def load_upsampler(folder: Path, dtype: str, device: torch.device) -> LTX2LatentUpsamplerModel:
    """The latent upsampler of a checkpoint folder, which it may be without. InputError as in :func:`load`."""
    if not (folder / "latent_upsampler").is_dir():
        raise InputError(f"{folder}: latent_upsampler: component folder is missing; two stages need it")
    return _module(folder, "latent_upsampler", LTX2LatentUpsamplerModel, DTYPES[dtype]).to(device)


def _class_name(folder: Path, config: str, known: tuple[str, ...]) -> str:
    name = read_json(folder / config).get("_class_name")
    if name not in known:
        raise bad_field(f"{folder}: {config}", "_class_name", name, f"one of {known}")
    return name


def _module(folder: Path, name: str, cls: Any, dtype: torch.dtype) -> Any:
    options = {} if cls is Gemma3ForConditionalGeneration else {"low_cpu_mem_usage": False}
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        module, report = cls.from_pretrained(
            folder / name,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            **options,
        )
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        raise InputError(f"{folder}: {name}: cannot be loaded ({_first_line(error)})") from None
    finally:
        if bars:
            transformers_logging.enable_progress_bar()
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report[problem]:
            names = sorted(str(key) for key in report[problem])
            raise InputError(f"{folder}: {name}: {len(names)} {problem.replace('_', ' ')}, the first is {names[0]}")
    return realigned(module).eval()


def realigned(module: Any) -> Any:
    """The module, every tensor copied out of the mapped file: its alignment there picks another GEMM path on a CPU."""
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)
    return module


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
