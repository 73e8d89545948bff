"""Every defect of the engine, and where it can be seen at all: in which dtypes, and in cases of which kind.

In bf16 a defect that moves the output less than rounding does is not visible by distance (relative L2 near 1e-2,
docs/log.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from conformance.case import Case
from conformance.defects import engine, stages
from conformance.defects.variants import Variant


@dataclass(frozen=True, kw_only=True)
class Defect:
    """Where a defect shows: compute dtypes, and whether a case exercises the broken code."""

    variant: Variant
    dtypes: tuple[str, ...]
    applies: Callable[[Case], bool]


def _any(case: Case) -> bool:
    return True


def _gated(case: Case) -> bool:
    return case.model == "ltx-2.3"


def _attending(case: Case) -> bool:
    return not case.request.skip_v2a


def _cfg(case: Case) -> bool:
    return case.request.video_guidance.cfg > 1.0


def _stg(case: Case) -> bool:
    return bool(case.request.stg_blocks)


def _image(case: Case) -> bool:
    return case.request.image is not None


def _soft_image(case: Case) -> bool:
    return case.request.image is not None and case.request.image.strength < 1.0


def _two_stages(case: Case) -> bool:
    return case.request.second is not None


def _two_strengths(case: Case) -> bool:
    """Strengths that differ; in bf16 by more than rounding hides."""
    second = case.request.second
    apart = 0.0 if second is None else abs(second.lora_second - second.lora_first)
    return apart > (0.0 if case.dtype == "fp32" else 0.5)


def _res2s(case: Case) -> bool:
    return "-hq-" in case.pipeline


_BOTH = ("fp32", "bf16")
_FP32 = ("fp32",)


def _rows() -> dict[str, tuple[Variant, tuple[str, ...], Callable[[Case], bool]]]:
    return {
        "fp32_grid": (engine.fp32_grid, _FP32, _any),
        "erf_gelu": (engine.erf_gelu, _FP32, _any),
        "start_positions": (engine.start_positions, _BOTH, _any),
        "no_frame_rate": (engine.no_frame_rate, _BOTH, _any),
        "v2a_skipped": (engine.v2a_skipped, _BOTH, _attending),
        "v2a_not_skipped": (stages.v2a_not_skipped, _BOTH, lambda case: case.request.skip_v2a),
        "gates_ignored": (engine.gates_ignored, _BOTH, _gated),
        "stg_zeroed": (engine.stg_zeroed, _BOTH, _stg),
        "connector_batched": (engine.connector_batched, _BOTH, _cfg),
        "cfg_swapped": (engine.cfg_swapped, _BOTH, _cfg),
        "rescale_complement": (engine.rescale_complement, _BOTH, _cfg),
        "given_frame_timestep": (engine.given_frame_timestep, _BOTH, _image),
        "strength_ignored": (stages.strength_ignored, _BOTH, _soft_image),
        "given_frame_unblended": (stages.given_frame_unblended, _BOTH, _soft_image),
        "lora_dropped": (stages.lora_dropped, _BOTH, _two_stages),
        "lora_one_strength": (stages.lora_one_strength, _BOTH, _two_strengths),
        "upsampled_unnormalised": (stages.upsampled_unnormalised, _BOTH, _two_stages),
        "audio_not_handed_over": (stages.audio_not_handed_over, _BOTH, _two_stages),
        "second_stage_from_noise": (stages.second_stage_from_noise, _BOTH, _two_stages),
        "first_stage_audio": (stages.first_stage_audio, _BOTH, _two_stages),
        "anchors_not_refined": (stages.anchors_not_refined, _BOTH, _res2s),
        "res2s_first_order": (stages.res2s_first_order, _BOTH, _res2s),
        "res2s_streams_swapped": (stages.res2s_streams_swapped, _BOTH, _res2s),
        "res2s_without_last": (stages.res2s_without_last, _FP32, _res2s),
    }


DEFECTS = {
    name: Defect(variant=variant, dtypes=dtypes, applies=applies)
    for name, (variant, dtypes, applies) in _rows().items()
}


def guarded(case: Case) -> tuple[str, ...]:
    """Defects that a gate over this case must catch."""
    return tuple(name for name, defect in DEFECTS.items() if case.dtype in defect.dtypes and defect.applies(case))
