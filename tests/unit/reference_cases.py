"""Small cases for tests of the diffusers reference, and one generator a model for all of them."""

from __future__ import annotations

from functools import cache
from typing import Any

from conformance.case import Case, Guidance, Layout, Request
from conformance.generator import Probe, Sample
from reference_impl.diffusers_ltx2 import DiffusersGenerator, build
from reference_impl.tiny.build import cached

OFF = Guidance(cfg=1.0, stg=0.0, modality=1.0, rescale=0.0)
FULL = Guidance(cfg=3.0, stg=1.0, modality=2.0, rescale=0.7)
REQUEST: dict[str, Any] = {
    "prompts": ("A raccoon in the rain.",),
    "negative_prompts": ("blurry",),
    "height": 64,
    "width": 96,
    "num_frames": 9,
    "frame_rate": 24.0,
    "steps": 2,
    "sigmas": (0.9, 0.4),
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
GUIDED: dict[str, Any] = {"video_guidance": FULL, "audio_guidance": FULL, "stg_blocks": (1,)}


def case(model: str = "ltx-2.3", dtype: str = "fp32", **changes: Any) -> Case:
    pipeline, layout = changes.pop("pipeline", "one-stage-t2v"), changes.pop("layout", Layout.single())
    return Case(
        model=model,
        pipeline=pipeline,
        variant="test",
        layout=layout,
        numerics="diffusers",
        overrides=(),
        dtype=dtype,
        quantization="checkpoint",
        kernels="off",
        checkpoint="tiny",
        request=Request(**(REQUEST | changes)),
        suites=(),
    )


@cache
def generator(model: str) -> DiffusersGenerator:
    return build(cached(model), "cpu")


def run(*args: Any, depth: str = "step", **changes: Any) -> Sample:
    wanted = case(*args, **changes)
    return generator(wanted.model).generate(wanted, Probe(depth=depth))
