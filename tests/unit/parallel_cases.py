"""What tests of layouts share: a case on ranks beside the same case on one device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from engine_reference import CPU, tiny_case, tiny_request
from ranks import run_ranks

from conformance.case import Case, Layout
from conformance.defects.variants import Variant
from conformance.generator import Probe, Sample
from engine.generator import Engine, build
from engine.parallel import mesh
from reference_impl.tiny.build import cached


@dataclass(frozen=True)
class Output:
    """What a rank returned. taps: shape and digest by name."""

    latents: dict[str, torch.Tensor]
    frames: np.ndarray
    audio: np.ndarray
    taps: dict[str, tuple[tuple[int, ...], str]]

    def equals(self, other: Output) -> bool:
        same = all(torch.equal(self.latents[stream], other.latents[stream]) for stream in self.latents)
        return same and np.array_equal(self.frames, other.frames) and np.array_equal(self.audio, other.audio)

    def distance(self, other: Output) -> float:
        """Relative L2 of the worse stream of the final latents."""
        return max(relative(self.latents[stream], other.latents[stream]) for stream in self.latents)


@cache
def engine(model: str) -> Engine:
    return build(cached(model), "cpu")


def case(model: str, dtype: str, layout: str = "single", numerics: str = "diffusers", **changes: Any) -> Case:
    return tiny_case(model, dtype, tiny_request(**changes), layout=Layout.parse(layout), numerics=numerics)


def generate(case: Case, variant: Variant | None = None, depth: str = "step") -> Output:
    """Here, on this rank or on the only device."""
    made = engine(case.model) if variant is None else variant.around(engine(case.model))
    sample: Sample = made.generate(case, Probe(depth=depth, keep=False))
    assert sample.audio is not None
    taps = {name: (tap.shape, tap.sha256) for name, tap in sample.trace.items()}
    return Output(sample.latents, sample.frames, sample.audio, taps)


def on_ranks(case: Case, variant: Variant | None = None, depth: str = "step") -> list[Output]:
    """The case in its layout, on forked ranks that find the models loaded."""
    engine(case.model)._loader.common(case.dtype)
    return run_ranks(case.layout.world, lambda rank: generate(case, variant, depth))


def single(case: Case, depth: str = "step") -> Output:
    """The same case on one device."""
    return generate(replace(case, layout=Layout.single()), depth=depth)


def merged(outputs: list[Output]) -> dict[str, tuple[tuple[int, ...], str]]:
    """Taps of all ranks; no two ranks have recorded different bits under one name."""
    taps: dict[str, tuple[tuple[int, ...], str]] = {}
    for output in outputs:
        for name, tap in output.taps.items():
            assert taps.setdefault(name, tap) == tap, name
    return taps


def places(world: int) -> mesh.Mesh:
    """The mesh of tensor parallelism alone."""
    return mesh.make(Layout.parse(f"tp{world}"), CPU)


def on_all(world: int, operation: Callable[[mesh.Mesh], torch.Tensor], variant: Variant | None = None) -> torch.Tensor:
    """The operation's result, the same bits on every rank."""

    @torch.inference_mode()
    def run(rank: int) -> torch.Tensor:
        with pytest.MonkeyPatch.context() as patch:
            for target, attribute, value in variant.replacements if variant else ():
                patch.setattr(target, attribute, value)
            return operation(places(world))

    results = run_ranks(world, run)
    assert all(torch.equal(result, results[0]) for result in results)
    return results[0]


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    """Relative L2 of ``a`` to ``b``."""
    return float((a.double() - b.double()).norm() / b.double().norm())
