"""What a run checks in a process of its own before its first case: generators, CLIP model, checkpoints.

Everything heavy is imported inside functions.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from conformance.pool import Report
from conformance.worker import factory

if TYPE_CHECKING:
    from conformance.source import Source


def prepare(
    argument: tuple[Source | None, dict[str, tuple[str, ...]], tuple[str, ...], str | None], report: Report
) -> dict[str, tuple[str, str]]:
    """Find, check and digest the checkpoint of every model: {model: (folder, digest)}.

    argument: the checkpoint for all models or None for the project's own, the models with the quantizations asked for,
    and the generators (``module:factory``) and the CLIP model or None that must be there. InputError names what is not.
    """
    from conformance import checkpoint, quantization, released, source
    from conformance.metrics.clip import ClipScorer

    given, models, generators, clip = argument
    for spec in generators:
        report(f"generator {spec}")
        factory(spec)
    ClipScorer.load(clip)
    if given is not None:
        path = source.resolve(given, report)
        report(f"checkpoint: {released.describe(path)}; hashing it")
        check_lora(path)
        for asked in {asked for each in models.values() for asked in each}:
            quantization.resolve(asked, path)
        return dict.fromkeys(models, (str(path), checkpoint.digest(path)))
    from reference_impl.tiny.build import cached

    found = {}
    for model, quantizations in models.items():
        report(f"checkpoint of {model}")
        path = cached(model)
        for asked in quantizations:
            quantization.resolve(asked, path)
        found[model] = (str(path), checkpoint.digest(path))
    return found


def check_lora(folder: Path) -> None:
    """InputError when the folder has one distilled LoRA and it is not of its transformer; names and shapes are read."""
    from conformance import checkpoint
    from engine import lora

    found = sorted(folder.glob(f"{checkpoint.LORA_FILES}.safetensors"))
    if len(found) == 1:
        lora.check(found[0], checkpoint.shapes(folder, "transformer"))
