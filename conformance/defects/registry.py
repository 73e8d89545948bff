"""Every defect of the engine, and the kind of case that exercises the broken code.

What of it limits cannot see, because legal changes move the output as much, is waived by name: thresholds/waivers.json.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from conformance.case import Case
from conformance.defects import engine, stages
from conformance.defects.variants import Variant


@dataclass(frozen=True, kw_only=True)
class Defect:
    """A broken engine, and whether a case exercises what is broken."""

    variant: Variant
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
    second = case.request.second
    return second is not None and second.lora_second != second.lora_first


def _res2s(case: Case) -> bool:
    return "-hq-" in case.pipeline


def _rows() -> dict[str, tuple[Variant, Callable[[Case], bool]]]:
    return {
        "fp32_grid": (engine.fp32_grid, _any),
        "erf_gelu": (engine.erf_gelu, _any),
        "start_positions": (engine.start_positions, _any),
        "no_frame_rate": (engine.no_frame_rate, _any),
        "v2a_skipped": (engine.v2a_skipped, _attending),
        "v2a_not_skipped": (stages.v2a_not_skipped, lambda case: case.request.skip_v2a),
        "gates_ignored": (engine.gates_ignored, _gated),
        "stg_zeroed": (engine.stg_zeroed, _stg),
        "connector_batched": (engine.connector_batched, _cfg),
        "cfg_swapped": (engine.cfg_swapped, _cfg),
        "rescale_complement": (engine.rescale_complement, _cfg),
        "given_frame_timestep": (engine.given_frame_timestep, _image),
        "strength_ignored": (stages.strength_ignored, _soft_image),
        "given_frame_unblended": (stages.given_frame_unblended, _soft_image),
        "lora_dropped": (stages.lora_dropped, _two_stages),
        "lora_one_strength": (stages.lora_one_strength, _two_strengths),
        "upsampled_unnormalised": (stages.upsampled_unnormalised, _two_stages),
        "audio_not_handed_over": (stages.audio_not_handed_over, _two_stages),
        "second_stage_from_noise": (stages.second_stage_from_noise, _two_stages),
        "first_stage_audio": (stages.first_stage_audio, _two_stages),
        "anchors_not_refined": (stages.anchors_not_refined, _res2s),
        "res2s_first_order": (stages.res2s_first_order, _res2s),
        "res2s_streams_swapped": (stages.res2s_streams_swapped, _res2s),
        "res2s_without_last": (stages.res2s_without_last, _res2s),
    }


DEFECTS = {name: Defect(variant=variant, applies=applies) for name, (variant, applies) in _rows().items()}


def exercised(case: Case) -> tuple[str, ...]:
    """Defects that can show in this case."""
    return tuple(name for name, defect in DEFECTS.items() if defect.applies(case))
