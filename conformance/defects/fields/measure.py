"""Flip one field, run, and say what changed by how much."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

import torch

from conformance.case import Case, Override
from conformance.defects.fields import FIELDS
from conformance.errors import UnsupportedCase
from conformance.generator import Probe, Sample
from conformance.matrix import all_cases
from engine.generator import Engine, build
from engine.numerics import Numerics, choices
from reference_impl.tiny.build import cached

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
PRESET = "diffusers"
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Change:
    """Largest relative L2 over some tensors, 0.0 for equal bits. None: nothing here runs the flipped value."""

    size: float | None
    what: str = ""

    @property
    def seen(self) -> bool | None:
        return None if self.size is None else self.size > 0


def others(field: str) -> list[str]:
    """Every value of a field that the preset does not have."""
    return [value for value in choices()[field] if value != getattr(numerics(), field)]


def numerics(**changes: Any) -> Numerics:
    """The preset with fields replaced."""
    return replace(Numerics.diffusers(), **changes)


def _distance(before: torch.Tensor, after: torch.Tensor) -> float:
    """Relative L2; 0.0 exactly where values and dtype are equal, infinity for other shapes."""
    if before.shape != after.shape:
        return float("inf")
    if torch.equal(before, after):
        return 0.0
    a, b = before.double(), after.double()
    return float((a - b).norm() / a.norm().clamp(min=1e-300))


def _short(pipeline: str, variant: str, picture: tuple[int, int] = (64, 128), **changes: Any) -> Case:
    """A case of the matrix, small and of two steps. picture: height and width of a given frame, if there is one."""
    case = next(
        case
        for case in all_cases()
        if (case.model, case.pipeline, case.variant, case.numerics) == ("ltx-2.3", pipeline, variant, PRESET)
        and case.kernels == "off"
    )
    small: dict[str, Any] = {"height": 64, "width": 128, "num_frames": 9, "steps": 2, "sigmas": (1.0, 0.4)}
    small |= {"text_tokens": 32, **changes}
    image = case.request.image
    if image is not None:
        small["image"] = replace(image, height=picture[0], width=picture[1], crf=0)
    return replace(case, request=replace(case.request, **small))


def _two_stages(pipeline: str, variant: str) -> Case:
    return _short(pipeline, variant, height=128, width=128)


CASES: dict[str, Callable[[], Case]] = {
    "text": lambda: _short("one-stage-t2v", "all-guidance"),
    # the engine makes the noise levels itself; 7 of them, as fewer can round alike
    "schedule": lambda: _short("one-stage-t2v", "unguided", steps=7, sigmas=None),
    "image": lambda: _short("one-stage-ti2v", "all-guidance"),
    "fitted": lambda: _short("one-stage-ti2v", "unguided", picture=(100, 90)),
    "two-stage": lambda: _two_stages("two-stage-t2v", "all-guidance-adapted"),
    "two-stage-image": lambda: _two_stages("two-stage-ti2v", "cfg-crf33"),
    "res2s": lambda: replace(_two_stages("two-stage-t2v", "all-guidance-adapted"), pipeline="two-stage-hq-t2v"),
}


@cache
def _engine(dtype: str) -> Engine:
    """One a dtype: an engine keeps its models until the dtype changes."""
    return build(cached("ltx-2.3"), "cpu")


def _run(kind: str, dtype: str, overrides: tuple[Override, ...]) -> tuple[Sample, Tensors]:
    case = replace(CASES[kind](), dtype=dtype, overrides=overrides)
    sample = _engine(dtype).generate(case, Probe(depth="step"))
    assert sample.audio is not None
    ends = {"frames": torch.from_numpy(sample.frames), "audio": torch.from_numpy(sample.audio)}
    return sample, sample.tensors | ends


@cache
def _base(kind: str, dtype: str) -> tuple[Sample, Tensors]:
    return _run(kind, dtype, ())


def runs(field: str, value: str, dtype: str) -> tuple[Change, Change]:
    """Of the component that reads the field first, and of what the run ends with: latents, else waveform, else bytes.

    Of bytes the size is the share of them that changed.
    """
    entry = FIELDS[field]
    before, before_taps = _base(entry.case, dtype)
    try:
        after, after_taps = _run(entry.case, dtype, (Override(field=field, value=value),))
    except UnsupportedCase:
        return Change(None), Change(None)
    names = [name for name in before_taps if any(fnmatchcase(name, pattern) for pattern in entry.taps)]
    component = Change(max(_distance(before_taps[name], after_taps[name]) for name in names))
    for what, keys in (("", list(before.latents)), ("waveform ", ["audio"])):
        sources = (before.latents, after.latents) if what == "" else (before_taps, after_taps)
        size = max(_distance(sources[0][key], sources[1][key]) for key in keys)
        if size:
            return component, Change(size, what)
    share = float((before_taps["frames"] != after_taps["frames"]).double().mean())
    return component, Change(share, "bytes " if share else "")


@torch.inference_mode()
def operation(field: str, value: str, dtype: str) -> Change:
    """Of the field's operation."""
    run = FIELDS[field].operation
    if run is None:
        return runs(field, value, dtype)[0]
    try:
        return Change(_distance(run(numerics(), DTYPES[dtype]), run(numerics(**{field: value}), DTYPES[dtype])))
    except UnsupportedCase:
        return Change(None)
