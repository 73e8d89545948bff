"""Generators without a model for a cluster: ``--engine cluster_fakes:NAME``."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
from fakes import Fake

from conformance.case import Case
from conformance.generator import Generator, Sample


def _kill_worker(case: Case, sample: Sample) -> Sample:
    """The case's process was forked by a server that the worker started."""
    os.kill(psutil.Process(os.getppid()).ppid(), signal.SIGKILL)
    signal.pause()  # until this process ends with the worker
    return sample


def loses(checkpoint: Path, device: str) -> Generator:
    """Every attempt at a bf16 case costs its worker; fp32 cases of variant ``unguided`` hang."""

    def fault(case: Case, sample: Sample) -> Sample:
        if case.dtype == "bf16":
            return _kill_worker(case, sample)
        if case.variant == "unguided":
            time.sleep(600)
        return sample

    return Fake("loses", fault)


def loses_once(checkpoint: Path, device: str) -> Generator:
    """The first attempt at a bf16 case does."""

    def fault(case: Case, sample: Sample) -> Sample:
        if case.dtype == "fp32":
            return sample
        try:
            (checkpoint / f"lost-{case.digest[:8]}").touch(exist_ok=False)
        except FileExistsError:
            return sample
        return _kill_worker(case, sample)

    return Fake("loses once", fault)


def waits(checkpoint: Path, device: str) -> Generator:
    """Every attempt leaves a file ``waits-PID`` and goes on when there is one named ``go``."""

    def wait(case: Case, sample: Sample) -> Sample:
        (checkpoint / f"waits-{os.getpid()}").touch()
        while not (checkpoint / "go").exists():
            time.sleep(0.1)
        return sample

    return Fake("waits", wait)
