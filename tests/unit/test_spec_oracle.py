"""The engine and diffusers against the float64 oracle: float32 to its floor, bf16 neither worse than the other.

bf16 has no closer gate over a whole model: every rounding order is as far from the truth as every other.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from typing import Any
from unittest.mock import patch

import pytest
import torch
from engine_reference import DIFFUSERS, MODELS, diffusers_dit, diffusers_forward, dit_inputs, engine_dit

from conformance.defects import engine as defects
from conformance.defects.variants import Variant
from engine.models.ltx2.transformer import ModelInputs
from engine.numerics import Numerics
from reference_impl.spec.oracle import Error, Inputs, velocities
from reference_impl.tiny.build import cached

FLOOR = 2e-6  # float32
RATIO = 1.15  # bf16, of the distances to the truth
FP32, BF16 = torch.float32, torch.bfloat16
PASSES: dict[str, dict[str, Any]] = {"plain": {}, "stg": {"stg_blocks": (1,)}, "isolated": {"isolated": True}}


def _inputs(model: str, dtype: torch.dtype, kind: str) -> ModelInputs:
    """The same numbers in both dtypes: those of bf16."""
    inputs = dit_inputs(model, BF16, **PASSES[kind])
    widened = {name: getattr(inputs, name).to(dtype) for name in ("video", "audio", "video_text", "audio_text")}
    return dit_inputs(model, dtype, **(PASSES[kind] | widened))


@cache
def _truth(model: str, kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    inputs = _inputs(model, BF16, kind)
    config = json.loads((cached(model) / "transformer" / "config.json").read_text())
    shared = {name: getattr(inputs, name) for name in Inputs.__dataclass_fields__ if hasattr(inputs, name)}
    return velocities(engine_dit(model, BF16).state_dict(), config, Inputs(**shared, perturbed=inputs.stg_blocks))


def _engine(
    model: str, dtype: torch.dtype, kind: str, variant: Variant | None = None, numerics: Numerics = DIFFUSERS
) -> list[Error]:
    with ExitStack() as stack, torch.inference_mode():
        for target, attribute, value in variant.replacements if variant else ():
            stack.enter_context(patch.object(target, attribute, value))
        out = engine_dit(model, dtype)(_inputs(model, dtype, kind), numerics)
    return [Error.of(x, truth) for x, truth in zip(out, _truth(model, kind), strict=True)]


def _diffusers(model: str, dtype: torch.dtype, kind: str) -> list[Error]:
    out = diffusers_forward(diffusers_dit(model, dtype), _inputs(model, dtype, kind))
    return [Error.of(x, truth) for x, truth in zip(out, _truth(model, kind), strict=True)]


@pytest.mark.parametrize("kind", PASSES)
@pytest.mark.parametrize("model", MODELS)
def test_float32_is_at_its_floor(model: str, kind: str) -> None:
    for error in (*_engine(model, FP32, kind), *_diffusers(model, FP32, kind)):
        assert error.rel_l2 <= FLOOR
        assert abs(error.bias) <= 1e-6
        assert abs(error.rms_ratio - 1) <= 1e-6


@pytest.mark.parametrize("kind", PASSES)
@pytest.mark.parametrize("model", MODELS)
def test_bf16_is_no_worse_than_the_reference_nor_better(model: str, kind: str) -> None:
    for ours, theirs in zip(_engine(model, BF16, kind), _diffusers(model, BF16, kind), strict=True):
        assert ours.rel_l2 <= RATIO * theirs.rel_l2
        assert theirs.rel_l2 <= RATIO * ours.rel_l2
        assert 1e-3 < ours.rel_l2 < 2e-2
        assert abs(ours.bias) <= 2e-3
        assert abs(ours.rms_ratio - 1) <= 5e-3


@pytest.mark.parametrize("name", ["start_positions", "v2a_skipped", "gates_ignored"])
@pytest.mark.parametrize("dtype", [FP32, BF16])
def test_a_semantic_mutant_is_far_from_the_truth(name: str, dtype: torch.dtype) -> None:
    """In the worse stream, in either dtype."""
    mutated = max(error.rel_l2 for error in _engine("ltx-2.3", dtype, "plain", getattr(defects, name)))
    reference = max(error.rel_l2 for error in _diffusers("ltx-2.3", dtype, "plain"))
    assert mutated > 2 * RATIO * reference
    assert mutated > 2e-2


def test_float32_shows_what_bf16_hides() -> None:
    """GELU with erf, and a float32 frequency grid: far over the floor, and nothing beside bf16's own error."""
    grid = replace(DIFFUSERS, rope_grid_dtype="float32")
    for mutated in (
        _engine("ltx-2.3", FP32, "plain", defects.erf_gelu),
        _engine("ltx-2.3", FP32, "plain", numerics=grid),
    ):
        assert max(error.rel_l2 for error in mutated) > 3 * FLOOR
    hidden = max(error.rel_l2 for error in _engine("ltx-2.3", BF16, "plain", defects.erf_gelu))
    assert hidden < RATIO * max(error.rel_l2 for error in _diffusers("ltx-2.3", BF16, "plain"))
