"""Build the tiny checkpoints and keep them in a cache, by the content of the code that builds them."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from conformance import checkpoint, environment
from conformance.errors import bad_field

MODELS = ("ltx-2", "ltx-2.3")
_PACKAGES = ("torch", "diffusers", "transformers", "tokenizers")


def source_digest() -> str:
    """sha256 over the sources of this package (configurations and seed are in them) and the versions it builds with."""
    total = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        total.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    for package in _PACKAGES:
        total.update(f"{package}=={version(package)}\n".encode())
    return total.hexdigest()


def cached(model: str) -> Path:
    """The folder of the tiny checkpoint of ``ltx-2`` or ``ltx-2.3``, built first where it is not there yet.

    Several processes may ask at once: each builds aside, the first to finish is kept. InputError for another model and
    for a cached folder that is damaged (see :func:`conformance.checkpoint.verify`).
    """
    _check(model)
    folder = environment.cache_root() / "tiny" / f"{model}-{source_digest()[:12]}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            build(model, aside)
            aside.chmod(0o755)
            os.rename(aside, folder)
        except OSError:
            if not folder.is_dir():
                raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    checkpoint.verify(folder)
    return folder


def build(model: str, folder: Path) -> None:
    """Write the tiny checkpoint of ``model`` into ``folder``: diffusers layout, bfloat16, the same bits always.

    Beside its components lies ``lora.FILE``, a LoRA for its transformer. The global random state is left as it was.
    InputError for an unknown model.
    """
    _check(model)
    from conformance import guard

    guard.install()
    import torch
    from diffusers.pipelines.ltx2.pipeline_ltx2 import LTX2Pipeline
    from safetensors.torch import save_file
    from transformers.utils import logging

    from reference_impl.tiny import (
        audio_vae,
        connectors,
        lora,
        scheduler,
        text_encoder,
        tokenizer,
        upsampler,
        video_vae,
        vocoder,
    )
    from reference_impl.tiny import transformer as dit

    with torch.random.fork_rng(devices=[]):
        pipeline = LTX2Pipeline(
            scheduler=cast(Any, scheduler.build()),  # diffusers annotates a placeholder class
            vae=video_vae.build(model),
            audio_vae=audio_vae.build(model),
            text_encoder=text_encoder.build(model),
            tokenizer=tokenizer.build(),
            connectors=connectors.build(model),
            transformer=dit.build(model),
            vocoder=vocoder.build(model),
        )
        latent_upsampler = upsampler.build(model)
        distilled = lora.build(pipeline.transformer, model)
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        pipeline.save_pretrained(folder, safe_serialization=True)
        latent_upsampler.save_pretrained(folder / "latent_upsampler", safe_serialization=True)
        save_file(distilled, folder / lora.FILE, metadata={"format": "pt"})
    finally:
        if bars:
            logging.enable_progress_bar()


def _check(model: str) -> None:
    if model not in MODELS:
        raise bad_field("tiny checkpoint", "model", model, f"one of {MODELS}")
