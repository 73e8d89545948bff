"""Generators without a model that run on ranks: ``--engine ranked_fakes:NAME``. ``good`` is right on every layout."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from fakes import Fake

from conformance.case import Case
from conformance.errors import UnsupportedCase
from conformance.generator import Generator, Probe, Sample

WORDS = ("cond", "uncond")


def _step(probe: Probe, rank: int) -> torch.Tensor:
    """A step whose branches run on the ranks in turn: [4] of their sum, on every rank."""
    world = dist.get_world_size() if dist.is_initialized() else 1
    total = torch.zeros(4)
    for index, branch in enumerate(WORDS):
        x0 = torch.zeros(4)
        if rank == index or world == 1:
            x0 += index + 1
            probe.tap(f"step.000/{branch}/velocity/video", x0)
        if world > 1:
            dist.all_reduce(x0)
        total += x0
    return total


class OnRanks:
    """It leaves its process id in the checkpoint's folder.

    ``spoil(rank, case, guided)`` is called between two collectives and returns what becomes of ``guided`` [4].
    """

    name = "ranked"

    def __init__(self, folder: Path, spoil: Callable[[int, Case, torch.Tensor], torch.Tensor]) -> None:
        self._folder, self._spoil = folder, spoil

    def generate(self, case: Case, probe: Probe) -> Sample:
        rank = dist.get_rank() if dist.is_initialized() else 0
        sample = Fake("ranked", lambda case, sample: sample).generate(case, probe)
        (self._folder / str(os.getpid())).touch()
        guided = self._spoil(rank, case, _step(probe, rank))
        if dist.is_initialized():
            dist.barrier()
        probe.tap("step.000/guided_x0/video", guided)
        sample.latents["video"] = sample.latents["video"] + guided.mean()
        probe.tap("latents/out", sample.latents["video"])
        return sample


def _on_ranks(rank: int, case: Case, fault: Callable[[], object]) -> None:
    if case.layout.world > 1 and rank == 1:
        fault()


def good(checkpoint: Path, device: str) -> Generator:
    return OnRanks(checkpoint, lambda rank, case, guided: guided)


class Alone(OnRanks):
    """Every rank computes all of it."""

    def generate(self, case: Case, probe: Probe) -> Sample:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(dist, "is_initialized", lambda: False)
            return super().generate(case, probe)


def alone(checkpoint: Path, device: str) -> Generator:
    return Alone(checkpoint, lambda rank, case, guided: guided)


def _faulty(fault: Callable[[], object]) -> Callable[[Path, str], Generator]:
    """``fault`` happens on rank 1 of 2 between two collectives, in bf16 cases alone."""

    def spoil(rank: int, case: Case, guided: torch.Tensor) -> torch.Tensor:
        if case.dtype == "bf16":
            _on_ranks(rank, case, fault)
        return guided

    def build(checkpoint: Path, device: str) -> Generator:
        return OnRanks(checkpoint, spoil)

    return build


def _raise() -> None:
    raise ZeroDivisionError("no heads left")


def _unsupported() -> None:
    raise UnsupportedCase("layout is not implemented")


dies = _faulty(lambda: os.kill(os.getpid(), signal.SIGKILL))
raises = _faulty(_raise)
hangs = _faulty(lambda: time.sleep(600))
unsupported = _faulty(_unsupported)


def _moved(sizes: Callable[[int, Case], float]) -> Callable[[Path, str], Generator]:
    """bf16 cases on ranks are off by ``sizes(rank, case)``."""

    def spoil(rank: int, case: Case, guided: torch.Tensor) -> torch.Tensor:
        return guided + sizes(rank, case) if case.dtype == "bf16" and case.layout.world > 1 else guided

    def build(checkpoint: Path, device: str) -> Generator:
        return OnRanks(checkpoint, spoil)

    return build


diverges = _moved(lambda rank, case: 1e-3 * rank)
moves = _moved(lambda rank, case: 1e-3)
breaks = _moved(lambda rank, case: 1e3)
