"""A synthetic run with every verdict, and small pictures for it."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from conformance.jsonio import write_json
from conformance.results import CaseResult, Divergence, FrameResult, LatentResult, MetricResult, Results, StepResult
from conformance.verdicts import Verdict

HOSTILE = "<script>alert('x')</script>\"'><img src=x onerror=alert(1)> ${7*7} {{7*7}} | `a` \u202egnp.exe\x00\x1b[31m"
HOSTILE_FILE = 'javascript:alert(1)/"><script>.png'
FAIL_ID = "ltx-2.3/one-stage-t2v/cfg@single+diffusers-bf16"
EXACT_ID = "ltx-2.3/one-stage-t2v/plain@single+diffusers-fp32"

_EVIDENCE: dict[str, Any] = {
    "method": "5 repeats under thread counts 1, 2 and unaligned weights",
    "samples": 5,
    "cohort": {"device": "cpu", "dtype": "bf16", "torch": "2.13.0", "diffusers": "0.42.1"},
    "power": {
        "caught": ["erf-gelu", "swapped-cfg"],
        "missed": ["blur_1"],
        "waived": [
            {"defect": "noise_2", "reason": "below bf16 rounding", "owner": "numerics", "expires": "2027-01-31"}
        ],
        "by": {"erf-gelu": ["ssim", "latents.rel_l2"]},
    },
    "owner": "numerics team",
    "date": "2026-08-01",
    "limits": {
        "ssim": {"limit": 0.95, "noise_floor": 0.9991, "smallest_defect": {"name": "erf-gelu", "value": 0.88}},
        "psnr": {"limit": 30.0, "noise_floor": "inf", "smallest_defect": {"name": "erf-gelu", "value": 24.0}},
        "latents.rel_l2": {
            "limit": 2e-3,
            "noise_floor": 0.0,
            "smallest_defect": {"name": "erf-gelu", "value": 0.011},
        },
    },
}


def _case(case_id: str, verdict: Verdict, reason: str = "", **more: Any) -> CaseResult:
    name, numerics = case_id.split("@")
    model, pipeline, variant = name.split("/")
    layout, preset = numerics.split("+")
    preset, dtype = preset.rsplit("-", 1)
    axes = {"model": model, "pipeline": pipeline, "variant": variant}
    values: dict[str, Any] = {
        "gate": "reference",
        "axes": {**axes, "layout": layout, "numerics": preset, "dtype": dtype},
        "command": f"conformance run {case_id}",
        "seconds": {"engine": 1.204, "reference": 2.31, "judge": 0.4},
    }
    return CaseResult(id=case_id, verdict=verdict, reason=reason, **(values | more))


def _pictures(root: Path, folder: str, count: int, worst: int) -> tuple[FrameResult, ...]:
    frames = []
    rows, columns = np.mgrid[0:96, 0:160]
    for index in range(count):
        base = np.stack([rows * 2, columns + index * 6, 220 - rows], axis=-1).astype(np.float64)
        wave_ = 40 * np.sin((columns + 4 * index) / 9.0)[..., None]
        reference = np.clip(base + wave_, 0, 255).astype(np.uint8)
        candidate = reference.copy()
        size = 34 if index == worst else 8
        candidate[20 : 20 + size, 60 : 60 + size] //= 3
        heat = np.abs(candidate.astype(int) - reference.astype(int)).astype(np.uint8)
        paths = {}
        for side, picture in (("candidate", candidate), ("reference", reference), ("heat", heat)):
            paths[side] = f"{folder}/{side}/0-{index:04d}.png"
            (root / paths[side]).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(root / paths[side])
        metrics = {"ssim": 0.912 if index == worst else 0.987, "mean_abs_diff": 4.1 if index == worst else 0.7}
        frames.append(FrameResult(batch=0, index=index, metrics={**metrics, "psnr": 24.0 + index}, **paths))
    return tuple(frames)


def _fail(root: Path) -> CaseResult:
    folder = "cases/fail"
    frames = _pictures(root, folder, count=9, worst=5)
    (root / folder / "log.txt").write_text("step 0\nstep 1\n")
    for side in ("candidate", "reference"):
        with wave.open(str(root / folder / f"{side}.wav"), "wb") as file:
            file.setparams((1, 2, 24000, 0, "NONE", ""))
            file.writeframes((8000 * np.sin(np.arange(2400) / 9)).astype("<i2").tobytes())
    resolved = {"height": 96, "width": 160, "sigmas": [1.0, 0.75, 0.5, 0.25, 0.0], "noise": "8f2a" * 16}
    ledger = {"torch": "2.13.0", "diffusers": "0.42.1", "device": "cpu", "threads": 1}
    tap = {"dtype": "bfloat16", "shape": [1, 120, 64], "sha256": "ab" * 32, "rms": 0.41, "max_abs": 3.2, "finite": True}
    return _case(
        FAIL_ID,
        Verdict.FAIL,
        "ssim worst 0.912 is below its limit 0.95 (frame 5); latents.rel_l2 worst 0.0117 is above its limit 0.002",
        metrics={
            "clip": MetricResult(value=None, worst=None, note="no CLIP weights: give --clip PATH"),
            "ssim": MetricResult(value=0.9787, worst=0.912, limit=0.95, ok=False),
            "psnr": MetricResult(value=34.25, worst=31.4, limit=30.0, ok=True),
            "mean_abs_diff": MetricResult(value=1.08, worst=4.1),
            "latents.rel_l2": MetricResult(value=0.0072, worst=0.0117, limit=2e-3, ok=False),
            "audio.correlation": MetricResult(value=0.99999996, worst=0.99999996),
            "audio.log_spectral_distance": MetricResult(value=0.41, worst=0.41),
        },
        latents={
            "video": LatentResult(rel_l2=0.0117, max_abs=0.31, norm_ratio=1.0004, cosine=0.99993, hash_equal=False),
            "audio": LatentResult(
                rel_l2=0.0027, max_abs=0.044, norm_ratio=0.9999997, cosine=0.999998, hash_equal=False
            ),
        },
        frames=frames,
        steps=tuple(
            StepResult(
                step=step, video=0.0 if step == 0 else 3.1e-5 * 4.4**step, audio=0.0 if step == 0 else 2e-6 * 6**step
            )
            for step in range(5)
        ),
        divergence=Divergence(
            tap="step.000/cond/block.01/ff/out",
            rel_l2=3.1e-5,
            max_abs=0.0039,
            candidate=tap,
            reference=tap | {"sha256": "cd" * 32, "rms": 0.42},
            compared=120,
            differing=77,
            missing=("step.000/cond/block.01/attn1/q_norm",),
        ),
        case={"model": "ltx-2.3", "request": {"prompts": ["a red fox in the snow"], "steps": 4, "seed": 7}},
        resolved={"candidate": resolved | {"rope": "bf16"}, "reference": resolved},
        ledger={"candidate": ledger, "reference": ledger | {"threads": 2}},
        evidence=_EVIDENCE,
        gap={"recorded": 0.002, "measured": 0.0117, "metric": "latents.rel_l2", "state": "grown"},
        oracle={
            "finding": "REGRESSION",
            "candidate_error": 0.0117,
            "reference_error": 0.002,
            "bias": 0.4,
            "rms_ratio": 5.9,
            "sentence": "5.9 times as far from float64 as the reference",
        },
        job="5e" * 32,
        shared=("text encoder", "video VAE", "vocoder"),
        files={
            "log": f"{folder}/log.txt",
            "candidate_audio": f"{folder}/candidate.wav",
            "reference_audio": f"{folder}/reference.wav",
            "candidate_latents": f"{folder}/candidate.safetensors",
        },
    )


def _exact() -> CaseResult:
    same = LatentResult(rel_l2=0.0, max_abs=0.0, norm_ratio=1.0, cosine=1.0, hash_equal=True)
    return _case(
        EXACT_ID,
        Verdict.PASS_EXACT,
        metrics={
            "ssim": MetricResult(value=1.0, worst=1.0, limit=0.95, ok=True),
            "psnr": MetricResult(value=float("inf"), worst=float("inf"), limit=30.0, ok=True),
        },
        latents={"video": same, "audio": same},
        steps=tuple(StepResult(step=step, video=0.0, audio=0.0) for step in range(5)),
    )


def hostile_case() -> CaseResult:
    """Text in every field that nobody vouches for."""
    bad_frame = FrameResult(batch=0, index=3, metrics={HOSTILE: 0.5}, candidate=HOSTILE_FILE, heat="no/such.png")
    return CaseResult(
        id=HOSTILE,
        gate="self",
        verdict=Verdict.FAIL,
        reason=HOSTILE,
        axes={"model": HOSTILE, HOSTILE: "x"},
        metrics={HOSTILE: MetricResult(value=float("nan"), worst=float("nan"), limit=0.5, ok=False, note=HOSTILE)},
        latents={
            HOSTILE: LatentResult(
                rel_l2=float("nan"), max_abs=float("inf"), norm_ratio=0.0, cosine=float("nan"), hash_equal=False
            )
        },
        frames=(bad_frame,),
        steps=(StepResult(step=0, video=float("nan"), audio=None), StepResult(step=1, video=float("inf"), audio=None)),
        divergence=Divergence(
            tap=HOSTILE,
            rel_l2=None,
            max_abs=None,
            candidate={"shape": [1, 2], "dtype": HOSTILE},
            reference={"shape": [1, 3]},
            compared=2,
            differing=1,
            missing=(HOSTILE,),
        ),
        case={"request": {"prompts": [HOSTILE]}},
        resolved={"candidate": {HOSTILE: HOSTILE}, "reference": {}},
        ledger={"candidate": {"env": HOSTILE}, "reference": {"env": "x"}},
        gap={"state": HOSTILE, "metric": HOSTILE, "recorded": HOSTILE},
        oracle={"finding": HOSTILE, "sentence": HOSTILE, "bias": HOSTILE},
        evidence={
            "owner": HOSTILE,
            "power": {
                "caught": [HOSTILE],
                "missed": [{"defect": HOSTILE}],
                "waived": [{"reason": HOSTILE}],
                "by": {HOSTILE: HOSTILE},
            },
            "limits": {HOSTILE: {"noise_floor": HOSTILE, "smallest_defect": {"name": HOSTILE}}},
        },
        shared=(HOSTILE,),
        files={HOSTILE: HOSTILE_FILE, "log": "javascript:alert(1)"},
        command=HOSTILE,
    )


def make_results(root: Path) -> Results:
    """Every verdict once and more; the pictures of the failing case are written under ``root``."""
    close = LatentResult(rel_l2=8.1e-7, max_abs=4e-6, norm_ratio=1.0, cosine=1.0, hash_equal=False)
    passing = {"ssim": MetricResult(value=0.99999, worst=0.99998, limit=0.999, ok=True)}
    one, hq = "ltx-2/one-stage-t2v", "ltx-2.3/one-stage-t2v"
    cases = (
        _exact(),
        _case(f"{one}/cfg@single+diffusers-fp32", Verdict.PASS, metrics=passing, latents={"video": close}),
        _fail(root),
        _case(f"{one}/odd@single+diffusers-bf16", Verdict.INCOMPARABLE, "sigmas differ: 0.909375 against 0.9094"),
        _case(f"{one}/cfg@single+diffusers-bf16", Verdict.NO_REFERENCE, "no stored reference for this case"),
        _case(f"{one}/plain@single+diffusers-bf16", Verdict.STALE_REFERENCE, "reference made with diffusers 0.41.0"),
        _case(f"{one}/full@single+diffusers-fp32", Verdict.CALIBRATION_NEEDED, "no limits for this case"),
        _case(f"{hq}/full@single+official-bf16", Verdict.WAIVED, "known: fused rotary, until 2026-12-01"),
        _case(
            f"{hq}/cfg@tp2+diffusers-bf16", Verdict.UNSUPPORTED, "layout tp2 needs 2 devices, there is 1", seconds={}
        ),
        _case(f"{hq}/odd@single+diffusers-fp32", Verdict.INFRA_ERROR, "time limit of 300 s; the worker was stopped"),
        hostile_case(),
    )
    run = {
        "started": "2026-08-01T10:00:00+00:00",
        "finished": "2026-08-01T10:03:25+00:00",
        "seconds": 205.1,
        "command": "conformance run --suite default --out out",
        "shard": None,
        "ledger": {"python": "3.11.9", "torch": "2.13.0", "diffusers": "0.42.1", "cpu": "2 cores"},
    }
    return Results(run=run, cases=cases)


def make_shards(root: Path, total: int = 3) -> list[Path]:
    """One run dealt out to ``total`` folders, with the pictures where their case went."""
    paths = []
    for index in range(total):
        folder = root / f"shard{index}"
        results = make_results(folder)
        run = results.run | {
            "shard": f"{index + 1}/{total}",
            "started": f"2026-08-01T10:0{index}:00+00:00",
            "finished": f"2026-08-01T10:3{index}:00+00:00",
            "seconds": 10.5,
            "command": f"conformance run --shard {index + 1}/{total}",
        }
        write_json(folder / "results.json", Results(run=run, cases=results.cases[index::total]).as_dict())
        paths.append(folder / "results.json")
    return paths
