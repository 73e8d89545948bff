"""One case on ranks: every rank runs the generator, and what they return becomes one Sample.

Everything that two ranks have must be the same bits on both: what is whole on every rank was computed from the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch

from conformance import ranks
from conformance.errors import RanksDisagree
from conformance.generator import Sample, Tap, tensor_digest
from conformance.jsonio import digest


@dataclass(frozen=True, kw_only=True)
class Part:
    """What one rank hands over. sample: with all outputs from rank 0, without from the others, and with the kept
    tensors that no lower rank has. outputs: digests of latents, frames, audio and resolved parameters."""

    sample: Sample
    outputs: dict[str, str]


def part(rank: ranks.Rank, sample: Sample) -> Part:
    """This rank's part of the case. Waits for the other ranks to have generated."""
    outputs = _digests(sample)
    rank.store.set(f"taps/{rank.index}", json.dumps(list(sample.tensors)))
    rank.enter("the hand-over of its taps")
    lower: set[str] = set()
    for index in range(rank.index):
        lower.update(json.loads(rank.store.get(f"taps/{index}")))
    tensors = {name: value for name, value in sample.tensors.items() if name not in lower}
    if rank.index == 0:
        return Part(sample=replace(sample, tensors=tensors), outputs=outputs)
    slim = replace(sample, tensors=tensors, frames=sample.frames[:0], frames_float=None, audio=None, latents={})
    return Part(sample=slim, outputs=outputs)


def merge(parts: Sequence[Part]) -> Sample:
    """The sample of rank 0 with the taps of all. RanksDisagree names the first tap or output that two ranks differ in.

    Taps stand in the order of the computation as far as the ranks' own orders tell it.
    """
    first = parts[0].sample
    trace = _merged(each.sample.trace for each in parts)
    traces = [each.sample.trace for each in parts]
    for name in trace:
        _same(f"tap {name}", {rank: own[name].sha256 for rank, own in enumerate(traces) if name in own})
    for name in dict.fromkeys(name for each in parts for name in each.outputs):
        _same(name, {r: each.outputs.get(name, "absent") for r, each in enumerate(parts)})
    kept = {name: value for each in parts for name, value in each.sample.tensors.items()}
    return replace(first, trace=trace, tensors={name: kept[name] for name in trace if name in kept})


def _digests(sample: Sample) -> dict[str, str]:
    found = {f"latents {name!r}": tensor_digest(value) for name, value in sample.latents.items()}
    for name in ("frames", "frames_float", "audio"):
        value = getattr(sample, name)
        if value is not None:
            found[name] = tensor_digest(torch.from_numpy(value))
    return found | {f"resolved {name!r}": digest(value) for name, value in sample.resolved.items()}


def _same(name: str, found: dict[int, str]) -> None:
    values = list(dict.fromkeys(found.values()))
    if len(values) > 1:
        groups = [", ".join(str(rank) for rank in found if found[rank] == value) for value in values]
        raise RanksDisagree(f"ranks disagree: {name} is not the same on rank {' as on rank '.join(groups)}")


def _merged(traces: Iterable[dict[str, Tap]]) -> dict[str, Tap]:
    """All taps; those that the ranks before lack stand before the next one that both have."""
    merged: dict[str, Tap] = {}
    for trace in traces:
        before: dict[str, list[str]] = {}
        fresh: list[str] = []
        for name in trace:
            if name in merged:
                before[name], fresh = fresh, []
            else:
                fresh.append(name)
        order = [name for old in merged for name in (*before.get(old, ()), old)] + fresh
        merged = {name: merged.get(name) or trace[name] for name in order}
    return merged
