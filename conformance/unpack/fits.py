"""Whether tensors are those that their configuration asks for, before any is copied."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conformance.errors import InputError
from conformance.jsonio import write_json
from conformance.tensorfile import Tensor


def check(where: str, component: str, config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Every tensor is there once, of the shape that ``config`` (of the diffusers layout) implies.

    InputError, which begins with ``where``, for a configuration that is not implemented, and for the first tensor that
    is missing, not asked for or of another shape.
    """
    import torch

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / component
        write_json(folder / "config.json", config)
        try:
            build, parsed = _module(component, folder)
        except InputError as error:
            raise InputError(f"{where}: {str(error).replace(f'{scratch}/', 'derived ')}") from None
    with torch.device("meta"):
        expected = {name: tuple(value.shape) for name, value in build(parsed).state_dict().items()}
    for problem, names in (
        ("lacks tensor", expected.keys() - tensors.keys()),
        ("has a tensor that its configuration does not ask for,", tensors.keys() - expected.keys()),
    ):
        if names:
            raise InputError(f"{where}: {component} {problem} {min(names)!r} ({len(names)} in all)")
    for name in sorted(expected):
        if tensors[name].shape != expected[name]:
            raise InputError(
                f"{where}: {component} tensor {name!r} is {tensors[name].shape}; expected {expected[name]}"
            )


def _module(component: str, folder: Path) -> tuple[Callable[[Any], Any], Any]:
    """The engine's own model, which is strict, and its configuration."""
    from engine.models.ltx2 import config, connectors, transformer, upsampler
    from engine.models.ltx2.audio_vae import config as audio_config
    from engine.models.ltx2.audio_vae import model as audio_vae
    from engine.models.ltx2.video_vae import config as video_config
    from engine.models.ltx2.video_vae import model as video_vae
    from engine.models.ltx2.vocoder import config as vocoder_config
    from engine.models.ltx2.vocoder import model as vocoder

    builders: dict[str, tuple[Callable[[Any], Any], Callable[[Path], Any]]] = {
        "transformer": (transformer.LTX2Transformer, config.TransformerConfig.load),
        "connectors": (connectors.LTX2Connectors, config.ConnectorsConfig.load),
        "vae": (video_vae.VideoVAE, video_config.VideoVAEConfig.load),
        "audio_vae": (audio_vae.AudioVAE, audio_config.AudioVAEConfig.load),
        "vocoder": (vocoder.build, vocoder_config.load),
        "latent_upsampler": (upsampler.LatentUpsampler, upsampler.UpsamplerConfig.load),
    }
    build, load = builders[component]
    return build, load(folder)
