"""Generators without a model, for tests of the harness: ``--engine fakes:NAME``, ``--reference fakes:good``.

``good`` is deterministic in the case. The others are ``good`` but for the cases whose variant they are
listed under in ``FAULTS``.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from conformance.case import Case
from conformance.errors import UnsupportedCase
from conformance.generator import Generator, Probe, Sample, tensor_digest
from conformance.inputs import draw_noise, noise_generator


@dataclass
class Fake:
    name: str
    spoil: Callable[[Case, Sample], Sample]

    def generate(self, case: Case, probe: Probe) -> Sample:
        request = case.request
        batch = len(request.prompts)
        video, audio = draw_noise(noise_generator(request.seed), (batch, 4, 3, 2, 2), (batch, 2, 5, 4))
        for name, noise in (("video", video), ("audio", audio)):
            probe.tap(f"noise/{name}", noise)
            for step in range(request.steps):
                probe.tap(f"step.{step:03d}/latents/{name}", noise * (1 - step / 10))
        latents = {"video": video.flatten(1) / 2, "audio": audio.flatten(1) / 2}
        for name, value in latents.items():
            probe.tap(f"latents/final/{name}", value)
        pixels = np.random.default_rng(request.seed).integers(0, 256, (batch, 3, 32, 48, 3), dtype=np.uint8)
        sample = Sample(
            frames=pixels,
            frames_float=None,
            audio=np.sin(np.arange(batch * 2 * 800, dtype=np.float32)).reshape(batch, 2, 800),
            audio_rate=16000,
            latents=latents,
            resolved={
                "height": request.height,
                "width": request.width,
                "num_frames": request.num_frames,
                "frame_rate": request.frame_rate,
                "steps": request.steps,
                "sigmas": list(request.sigmas or ()),
                "video_tokens": 12,
                "audio_tokens": 5,
                "guidance": {
                    "video": request.video_guidance.as_dict(),
                    "audio": request.audio_guidance.as_dict(),
                },
                "stg_blocks": list(request.stg_blocks),
                "skip_v2a": request.skip_v2a,
                "dtype": case.dtype,
                "quantization": "none",
                "second_stage": None,
                "vae_tiling": None if request.vae_tiling is None else request.vae_tiling.as_dict(),
                "image": None,
                "positions": {"video": "none", "audio": "none"},
                "noise": {"video": tensor_digest(video), "audio": tensor_digest(audio)},
                "embeds": {"pos": "none"},
                "weights": {"fake": "none"},
            },
        )
        return self.spoil(case, sample)


def _crash(case: Case, sample: Sample) -> Sample:
    os.kill(os.getpid(), signal.SIGSEGV)
    return sample


def _hang(case: Case, sample: Sample) -> Sample:
    time.sleep(600)
    return sample


def _raise(case: Case, sample: Sample) -> Sample:
    raise RuntimeError("the kernel <b>exploded</b>")


def _unsupported(case: Case, sample: Sample) -> Sample:
    raise UnsupportedCase("layout 'tp2' is not implemented")


def _nan(case: Case, sample: Sample) -> Sample:
    sample.latents["video"][0, 0] = torch.nan
    return sample


def _short(case: Case, sample: Sample) -> Sample:
    sample.frames = sample.frames[:, :2]
    return sample


def _constant(case: Case, sample: Sample) -> Sample:
    sample.frames[0, 1] = 128
    return sample


def _other_noise(case: Case, sample: Sample) -> Sample:
    sample.resolved["noise"] = {**sample.resolved["noise"], "video": "0" * 64}
    return sample


FAULTS: dict[str, Callable[[Case, Sample], Sample]] = {
    "unguided": _crash,
    "cfg": _hang,
    "all-guidance": _nan,
    "all-guidance-odd": _short,
    "cfg-batch2": _constant,
    "unguided-50fps-6steps": _raise,
    "cfg-own-schedule": _other_noise,
}


def good(checkpoint: Path, device: str) -> Generator:
    return Fake("good", lambda case, sample: sample)


def faulty(checkpoint: Path, device: str) -> Generator:
    """Every fault there is, one a variant, on fp32 cases; bf16 cases are good."""
    return Fake("faulty", lambda case, sample: FAULTS[case.variant](case, sample) if case.dtype == "fp32" else sample)


def slow(checkpoint: Path, device: str) -> Generator:
    """Good, but takes 0.4 s a case."""

    def spoil(case: Case, sample: Sample) -> Sample:
        time.sleep(0.4)
        return sample

    return Fake("slow", spoil)


def floats(checkpoint: Path, device: str) -> Generator:
    return Fake("floats", lambda case, sample: replace(sample, frames=sample.frames.astype(np.float32)))


def nothing(checkpoint: Path, device: str) -> Generator:
    return Fake("nothing", lambda case, sample: cast(Sample, None))


def unjson(checkpoint: Path, device: str) -> Generator:
    return Fake("unjson", lambda case, sample: replace(sample, resolved={**sample.resolved, "dtype": torch.float32}))


def names(checkpoint: Path, device: str) -> Generator:
    return Fake("names", lambda case, sample: replace(sample, shared=cast(Any, ["vae", 3])))


def surrogate(checkpoint: Path, device: str) -> Generator:
    def spoil(case: Case, sample: Sample) -> Sample:
        raise RuntimeError("\ud800 <b>")

    return Fake("surrogate", spoil)


def unsupporting(checkpoint: Path, device: str) -> Generator:
    return Fake("unsupporting", _unsupported)


def counting(checkpoint: Path, device: str) -> Generator:
    """Good, and leaves a file in the folder ``counts`` beside the checkpoint for every run."""

    def spoil(case: Case, sample: Sample) -> Sample:
        (checkpoint.parent / "counts" / str(time.monotonic_ns())).touch()
        return sample

    return Fake("counting", spoil)


def killing(checkpoint: Path, device: str) -> Generator:
    return Fake("killing", _crash)


def raising(checkpoint: Path, device: str) -> Generator:
    return Fake("raising", _raise)


def nudged(checkpoint: Path, device: str) -> Generator:
    """Off by 1e-6 in the video latents."""

    def spoil(case: Case, sample: Sample) -> Sample:
        sample.latents["video"] = sample.latents["video"] * (1 + 1e-6)
        return sample

    return Fake("nudged", spoil)


def non_finite(checkpoint: Path, device: str) -> Generator:
    return Fake("non_finite", _nan)
