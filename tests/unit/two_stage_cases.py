"""Two-stage cases for tests of the diffusers reference."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from reference_cases import case, generator

from conformance import checkpoint
from conformance.case import Case, ImageCondition, SecondStage
from conformance.generator import Probe, Sample
from reference_impl.tiny.build import cached

SIGMAS = (0.909375, 0.421875)
PICTURE = ImageCondition(picture="blocks", height=70, width=81, crf=33, strength=1.0)
STREAMS = ("video", "audio")
SHAPES = {  # of the noise of each stage
    "stage.1": ((1, 128, 2, 2, 3), (1, 8, 9, 16)),
    "stage.2": ((1, 128, 2, 4, 6), (1, 8, 9, 16)),
}


def wanted(model: str = "ltx-2.3", dtype: str = "fp32", *, image: bool = False, **changes: Any) -> Case:
    """128x192 pixels; LoRA strengths ``first`` and ``second``."""
    second = SecondStage(sigmas=SIGMAS, lora_first=changes.pop("first", 0.25), lora_second=changes.pop("second", 1.0))
    pipeline, picture = ("two-stage-ti2v", PICTURE) if image else ("two-stage-t2v", None)
    size = {"height": 128, "width": 192, "second": second, "image": picture}
    return case(model, dtype, **{"pipeline": pipeline, **size} | changes)


@cache
def sample(model: str = "ltx-2.3", dtype: str = "fp32", **changes: Any) -> Sample:
    return generator(model).generate(wanted(model, dtype, **changes), Probe(depth="step"))


def lora(model: str = "ltx-2.3") -> Path:
    return checkpoint.distilled_lora(cached(model))
