"""What a case's two sides give under changes that must not matter: the samples that a noise floor stands on.

Every cohort, a side on a device, has: a fresh process; the same process again, after another case; every condition that
is legal for the case; of the engine also every nuisance of its numerics; and unchanged repeats up to the number asked
for. Every distinct outcome is compared with every distinct outcome of the reference: a gate may meet any such pair.
"""

from __future__ import annotations

import hashlib
import math
import multiprocessing
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from conformance.case import Case
from conformance.compare import compare
from conformance.defects import nuisance
from conformance.defects.conditions import conditions
from conformance.generator import Generator, Probe, Sample, tensor_digest
from conformance.job import ENGINE, REFERENCES, reference_of
from conformance.worker import factory
from thresholds.floor import METRIC, SIDES, Spread, modes

Values = dict[str, float]  # metric -> worst value
Tell = Callable[[str], None]
FRESH, AFTER = "fresh_process", "after_another_case"


@dataclass(frozen=True, kw_only=True)
class Noise:
    """reference: the baseline, of the first fresh process. values: of every pair. spreads: the cohorts."""

    reference: Sample
    values: tuple[Values, ...]
    spreads: tuple[Spread, ...]


def fingerprint(sample: Sample) -> str:
    """12 hexadecimal digits over everything that is judged: frames, audio and latents."""
    audio = None if sample.audio is None else torch.from_numpy(sample.audio)
    latents = {f"latents/{name}": value for name, value in sample.latents.items()}
    parts = {"frames": torch.from_numpy(sample.frames), "audio": audio, **latents}
    marks = [f"{name}:{'' if part is None else tensor_digest(part)}" for name, part in sorted(parts.items())]
    return hashlib.sha256("\n".join(marks).encode()).hexdigest()[:12]


def worst(candidate: Sample, reference: Sample, case: Case) -> Values:
    """Worst value of every metric that could be measured."""
    measured = compare(candidate, reference, limits=None, given_frames=case.request.given_frames).metrics
    return {name: result.worst for name, result in measured.items() if result.worst is not None}


def devices(device: str) -> tuple[str, ...]:
    """``device`` and, of ``cuda``, the other GPUs that are visible."""
    if device != "cuda":
        return (device,)
    return ("cuda:0", *(f"cuda:{i}" for i in range(1, torch.cuda.device_count())))


def engine(folder: Path, device: str) -> Generator:
    return factory(ENGINE)(folder, device)


def generators(case: Case) -> dict[str, Callable[[Path, str], Generator]]:
    """The factory of each side of a case."""
    return {"engine": engine, "reference": factory(REFERENCES[reference_of(case)])}


def generate(generator: Generator, case: Case) -> Sample:
    return generator.generate(case, Probe(depth="step", keep=False))


def measure(case: Case, folder: Path, device: str, fewest: int, tell: Tell) -> Noise:
    """Both sides under every change. fewest: samples a cohort, at least. Nothing may have been computed here before."""
    cohorts = [(side, place) for place in devices(device) for side in SIDES]
    fresh = {}
    for side, place in cohorts:
        tell(f"{side} on {place}: {FRESH}")
        fresh[side, place] = _in_fresh_process(generators(case)[side], case, folder, place)
    base = fingerprint(fresh["reference", cohorts[0][1]])
    outcomes: dict[str, dict[str, Sample]] = {side: {} for side in SIDES}
    marks: dict[tuple[str, str], dict[str, str]] = {}
    for side, place in cohorts:
        named = {}
        for name, sample in [(FRESH, fresh[side, place]), *_again(side, case, folder, place, fewest, tell)]:
            named[name] = fingerprint(sample)
            outcomes[side].setdefault(named[name], sample)
        marks[side, place] = named
    tell("comparing pairs")
    every = outcomes["reference"] | outcomes["engine"]
    pairs = {
        (a, b): worst(every[a], every[b], case) for a in every for b in outcomes["reference"] if a != b or a == base
    }
    spreads = []
    for (side, place), named in marks.items():
        far = {name: pairs[mark, base].get(METRIC, math.inf) for name, mark in named.items()}
        repeats = max(value for name, value in far.items() if name in (FRESH, AFTER) or name.startswith("repeat"))
        device = place if place == "cpu" else f"{place} {torch.cuda.get_device_name(place)}"
        spread = Spread(side=side, device=device, modes=modes(named), repeats=repeats, changes=max(far.values()))
        spreads.append(spread)
    return Noise(reference=every[base], values=tuple(pairs.values()), spreads=tuple(spreads))


def _again(side: str, case: Case, folder: Path, place: str, fewest: int, tell: Tell) -> Iterator[tuple[str, Sample]]:
    """Every sample of a cohort but that of the fresh process, by name."""
    generator = generators(case)[side](folder, place)
    tell(f"{side} on {place}: {AFTER}")
    generate(generator, replace(case, request=replace(case.request, seed=case.request.seed + 1)))
    yield AFTER, generate(generator, case)
    legal = conditions(case, place)
    for name, condition in legal.items():
        tell(f"{side} on {place}: {name}")
        with condition():
            sample = generate(generator, case)
        yield name, sample
    nuisances = nuisance.NUISANCES if side == "engine" else ()
    for name in nuisances:
        tell(f"{side} on {place}: {name}")
        yield name, generate(getattr(nuisance, name).around(generator), case)
    for number in range(1, fewest - len((FRESH, AFTER, *legal, *nuisances)) + 1):
        tell(f"{side} on {place}: repeat {number}")
        yield f"repeat_{number}", generate(generator, case)


def _in_fresh_process(build: Callable[[Path, str], Generator], case: Case, folder: Path, place: str) -> Sample:
    """One sample from a child that has computed nothing before. RuntimeError when it dies."""
    mp = multiprocessing.get_context("fork")
    ours, theirs = mp.Pipe(duplex=False)
    child = mp.Process(target=_send, args=(theirs, build, case, folder, place))
    child.start()
    theirs.close()
    try:
        answer = pickle.loads(ours.recv_bytes())
    except EOFError:
        raise RuntimeError(f"a fresh process died before it gave a sample of {case.id}") from None
    finally:
        child.join()
    return answer


def _send(pipe: Connection, build: Callable[[Path, str], Generator], case: Case, folder: Path, place: str) -> None:
    torch.set_num_threads(1)
    pipe.send_bytes(pickle.dumps(generate(build(folder, place), case)))
