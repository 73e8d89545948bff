"""How long a report of many cases takes to build, and how large it is: ``python -m reports.bench --out DIR``.

The results are made up, their size is not: every case has all its metrics, taps, evidence, parameters and ledgers.
All cases show the same few pictures, which are decoded and embedded anew for each of them.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

import thresholds
from conformance.artifacts import write_frames
from conformance.compare import compare
from conformance.generator import Sample
from conformance.matrix import all_cases
from conformance.media import write_wav
from conformance.results import CaseResult, Results, StepResult
from conformance.verdicts import Verdict
from reports.render import write_report

SEED = 0


def _video(frames: int, height: int, width: int, noise: float) -> np.ndarray:
    """A moving picture with smooth areas, edges and grain, uint8 [1,F,H,W,3]; ``noise`` in levels."""
    random = np.random.default_rng(SEED)
    rows, columns = np.mgrid[0:height, 0:width]
    made = []
    for frame in range(frames):
        shade = 110 + 70 * np.sin((columns + 3 * frame) / 61) * np.cos(rows / 47)
        disc = (rows - height / 2) ** 2 + (columns - width / 3 - 2 * frame) ** 2 < (height / 4) ** 2
        picture = np.stack([shade, shade * 0.8 + 40 * disc, 200 - shade * 0.5], axis=-1)
        made.append(picture + random.normal(0, 3 + noise, picture.shape))
    return np.clip(made, 0, 255).astype(np.uint8)[None]


def _sample(frames: np.ndarray) -> Sample:
    return Sample(frames=frames, frames_float=None, audio=None, audio_rate=None, latents={})


def make(root: Path, *, cases: int, failing: int, frames: int, height: int, width: int) -> Results:
    """Results of ``cases`` cases, the first ``failing`` FAIL and the rest PASS_EXACT; pictures under ``root``."""
    candidate, reference = (_sample(_video(frames, height, width, noise)) for noise in (4.0, 0.0))
    limits = {"ssim": 0.9999, "psnr": 60.0, "mean_abs_diff": 0.1}
    judged = {
        Verdict.FAIL: (compare(candidate, reference, limits=limits), candidate),
        Verdict.PASS_EXACT: (compare(reference, reference, limits=limits), reference),
    }
    pictures = {
        verdict: write_frames(result.frames, side, reference, root, f"pictures/{verdict}")
        for verdict, (result, side) in judged.items()
    }
    sound = np.random.default_rng(SEED).normal(0, 0.1, (2, 48_000)).astype(np.float32)
    for side in ("candidate", "reference"):
        write_wav(root / "pictures" / f"{side}.wav", sound, 24_000)
    entries = list(thresholds.load().entries.values())
    matrix = list(all_cases())
    made = []
    for number in range(cases):
        verdict = Verdict.FAIL if number < failing else Verdict.PASS_EXACT
        case, entry = matrix[number % len(matrix)], entries[number % len(entries)]
        result = judged[verdict][0]
        one = CaseResult(
            id=f"{case.id}-{number}",
            gate="reference",
            verdict=verdict,
            reason=result.reason,
            axes=case.axes,
            metrics=result.metrics,
            frames=pictures[verdict],
            steps=tuple(StepResult(step=step, video=1e-6 * 2**step, audio=1e-7 * 2**step) for step in range(31)),
            case=case.as_dict(),
            resolved={side: _parameters() for side in ("candidate", "reference")},
            ledger={side: _parameters() for side in ("candidate", "reference")},
            evidence=entry.evidence,
            files={f"{side}_audio": f"pictures/{side}.wav" for side in ("candidate", "reference")},
            seconds={"engine": 1.0, "reference": 1.0, "judge": 0.1},
            command=f"conformance run '{case.id}'",
        )
        made.append(one)
    return Results(run={"command": "python -m reports.bench", "seconds": 0.0}, cases=tuple(made))


def _parameters() -> dict[str, Any]:
    return {f"parameter_{number}": f"{number:064x}" for number in range(50)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the report")
    parser.add_argument("--cases", type=int, default=200, metavar="N")
    parser.add_argument("--failing", type=int, default=40, metavar="N", help="of them, with every frame different")
    parser.add_argument("--frames", type=int, default=25, metavar="N", help="of each case")
    parser.add_argument("--size", default="512x768", metavar="HxW", help="of a frame")
    options = parser.parse_args()
    height, width = (int(part) for part in options.size.split("x"))
    results = make(
        options.out, cases=options.cases, failing=options.failing, frames=options.frames, height=height, width=width
    )
    started, cpu = time.perf_counter(), time.process_time()
    index = write_report(results, options.out)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    megabytes = index.stat().st_size / 1e6
    print(f"{options.cases} cases, {options.failing} failing, {options.frames} frames of {options.size}")
    print(f"built in {seconds:.1f} s ({cpu:.1f} s of one core), index.html {megabytes:.1f} MB")


if __name__ == "__main__":
    main()
