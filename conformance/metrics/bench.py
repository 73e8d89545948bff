"""Speed of judging: ``python -m conformance.metrics.bench`` measures every metric but CLIP of a video, by the
comparator, and the plain loop over frames with scikit-image (SSIM, PSNR, mean absolute difference), in one run.

Both get the same frames: a moving picture with grain, and the same with an error. Exit code 1 when a value that both
have differs by more than 1e-9.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
from scipy.ndimage import gaussian_filter

from conformance.compare import compare
from conformance.generator import Sample
from conformance.metrics import REGISTRY

TOLERANCE = 1e-9
Values = dict[str, list[float]]


def video(frames: int, height: int, width: int, sigma: float) -> Sample:
    """A smooth picture that moves by a pixel a frame, with grain that stays in place and an error of ``sigma``."""
    rng = np.random.default_rng(0)
    smooth = gaussian_filter(rng.standard_normal((height, width + frames, 3)), (8, 8, 0))
    scene = 128 + smooth * (100 / np.abs(smooth).max())
    grain, error = rng.normal(0, 2, (height, width, 3)), rng.normal(0, sigma, (height, width, 3))
    pixels = np.empty((1, frames, height, width, 3), dtype=np.uint8)
    for f in range(frames):
        pixels[0, f] = np.clip(np.rint(scene[:, f : f + width] + grain + np.roll(error, f, axis=0)), 0, 255)
    return _sample(pixels)


def _sample(pixels: np.ndarray) -> Sample:
    return Sample(frames=pixels, frames_float=None, audio=None, audio_rate=None, latents={})


def plain(candidate: Sample, reference: Sample) -> Values:
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    values: Values = {"ssim": [], "psnr": [], "mean_abs_diff": []}
    for mine, theirs in zip(candidate.frames[0], reference.frames[0], strict=True):
        values["ssim"].append(float(structural_similarity(mine, theirs, channel_axis=-1, data_range=255)))
        values["psnr"].append(float(peak_signal_noise_ratio(theirs, mine, data_range=255)))
        values["mean_abs_diff"].append(float(np.abs(mine.astype(np.float64) - theirs).mean()))
    return values


def judged(candidate: Sample, reference: Sample) -> Values:
    frames = compare(candidate, reference, limits=None).frames
    return {name: [frame.metrics[name] for frame in frames] for name in ("ssim", "psnr", "mean_abs_diff")}


def _timed(function: Callable[[Sample, Sample], Values], *sides: Sample) -> tuple[Values, float, float]:
    """Values, wall seconds, and seconds of all threads."""
    wall, cpu = time.perf_counter(), time.process_time()
    values = function(*sides)
    return values, time.perf_counter() - wall, time.process_time() - cpu


def _working_mib(*sides: Sample) -> float:
    """Largest memory that judging holds beside the frames."""
    tracemalloc.start()
    try:
        judged(*sides)
        return tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0])
    parser.add_argument("--frames", type=int, default=121, help="(default: 121)")
    parser.add_argument("--size", default="768x512", help="WIDTHxHEIGHT (default: 768x512)")
    options = parser.parse_args()
    width, height = (int(side) for side in options.size.split("x"))
    reference, candidate = (video(options.frames, height, width, sigma) for sigma in (0, 3))
    for function in (judged, plain):  # imports and first calls are not part of it
        function(*(_sample(side.frames[:, :2]) for side in (candidate, reference)))
    mine, wall, cpu = _timed(judged, candidate, reference)
    theirs, plain_wall, plain_cpu = _timed(plain, candidate, reference)
    count = sum(metric.kind in ("frame", "motion") and name != "clip" for name, metric in REGISTRY.items())
    print(f"{options.frames} frames of {width}x{height} on {len(os.sched_getaffinity(0))} CPUs, numpy {np.__version__}")
    print(f"judging, {count} metrics   {wall:7.2f} s, {cpu:7.2f} CPU s")
    print(f"scikit-image, 3 metrics {plain_wall:7.2f} s, {plain_cpu:7.2f} CPU s")
    print(f"{plain_wall / wall:.1f} times faster, with {plain_cpu / cpu:.1f} times less CPU time")
    print(f"judging holds {_working_mib(candidate, reference):.0f} MiB beside the frames")
    worst = {name: max(abs(a - b) for a, b in zip(mine[name], theirs[name], strict=True)) for name in theirs}
    print(f"largest difference: {', '.join(f'{name} {value:.1e}' for name, value in worst.items())}")
    return int(not max(worst.values()) <= TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
