"""Two references, or a reference and what a run produced, side by side: digests, metrics and where they come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from conformance import results
from conformance.compare import compare
from conformance.errors import InputError
from conformance.generator import Sample, output_digests
from conformance.jsonio import jsonable, read_json
from ground_truth import saved
from ground_truth.manifest import SCHEMA, Manifest
from ground_truth.store import Store

_UNKNOWN = "absent"


@dataclass(frozen=True, kw_only=True)
class Side:
    """One sample: its case, whose output it is (``self`` for a run's), what it was made from, and how to read it."""

    case: str
    kind: str
    origin: dict[str, Any]
    read: Callable[[], Sample]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """old, new: digests of the outputs that differ, by name. metrics: worst values, the new against the old.

    reason: the comparator's. origin: in what the makings of the two differ, as lines.
    """

    case: str
    kind: str
    old: dict[str, str]
    new: dict[str, str]
    metrics: dict[str, float]
    reason: str
    origin: tuple[str, ...]

    @property
    def equal(self) -> bool:
        return not (self.old or self.new)

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "equal": self.equal}

    def lines(self) -> Iterator[str]:
        """For people to review."""
        yield f"{self.case} ({self.kind}): {'equal bit for bit' if self.equal else self.reason}"
        for name in dict.fromkeys((*self.old, *self.new)):
            yield f"  {name}: {self.old.get(name, _UNKNOWN)[:16]} -> {self.new.get(name, _UNKNOWN)[:16]}"
        if not self.equal:
            yield from (f"  {name}: {value:.6g}" for name, value in self.metrics.items())
        yield from (f"  {line}" for line in self.origin)


def sides(path: Path) -> list[Side]:
    """What a store (a folder with ``manifests``), a manifest or a run (its folder or results.json) holds.

    InputError when it is none of these, or malformed.
    """
    if (path / "manifests").is_dir():
        return _of_store(Store(path))
    if (path / "results.json").is_file():
        path = path / "results.json"
    if not path.is_file():
        raise InputError(f"{path}: is no store, manifest or run; expected a folder with manifests, or results.json")
    data = read_json(path)
    if isinstance(data, dict) and data.get("schema") == SCHEMA:
        store = Store(path.parent.parent)
        return [side for side in _of_store(store) if store.path(side.case, side.kind).samefile(path)]
    return _of_run(path)


def pairs(old: list[Side], new: list[Side]) -> tuple[list[tuple[Side, Side]], list[str]]:
    """Sides to compare, and a line for each that is on one side alone. One and one are a pair whatever they are."""
    if len(old) == len(new) == 1:
        return [(old[0], new[0])], []
    found, alone = [], []
    left = {(side.case, side.kind): side for side in old}
    for side in new:
        if (other := left.pop((side.case, side.kind), None)) is not None:
            found.append((other, side))
        else:
            alone.append(f"{side.case} ({side.kind}): only in B")
    return found, [*alone, *(f"{case} ({kind}): only in A" for case, kind in left)]


def difference(old: Side, new: Side) -> Difference:
    """What is unlike in two samples. InputError when one cannot be read."""
    before, after = old.read(), new.read()
    mine, theirs = output_digests(after), output_digests(before)
    changed = [name for name in dict.fromkeys((*theirs, *mine)) if mine.get(name) != theirs.get(name)]
    judged = compare(after, before, limits=None)
    return Difference(
        case=new.case if new.case == old.case else f"{old.case} -> {new.case}",
        kind=new.kind if new.kind == old.kind else f"{old.kind} -> {new.kind}",
        old={name: theirs[name] for name in changed if name in theirs},
        new={name: mine[name] for name in changed if name in mine},
        metrics={name: item.worst for name, item in judged.metrics.items() if item.worst is not None},
        reason=judged.reason.partition(", and there are no limits")[0],
        origin=tuple(_changed(old.origin, new.origin)),
    )


def origin_of(case: dict[str, Any], resolved: Any, ledger: Any, **more: Any) -> dict[str, Any]:
    """What a sample was made from, as dotted names and JSON values."""
    case = {key: value for key, value in case.items() if key != "suites"}
    return _flat(jsonable({"case": case, "resolved": resolved, "ledger": ledger, **more}))


def _of_store(store: Store) -> list[Side]:
    def side(entry: Manifest) -> Side:
        more = {"checkpoint": entry.checkpoint, "generator": entry.generator, "reason": entry.reason}
        return Side(
            case=entry.case_id,
            kind=entry.kind,
            origin=origin_of(entry.case, entry.resolved, entry.ledger, **more),
            read=lambda: store.sample(entry),
        )

    return [side(entry) for entry in store.entries()]


def _of_run(path: Path) -> list[Side]:
    found = {result.id: of_result(result, path.parent) for result in results.load(path).cases if result.outputs}
    return list(found.values())


def of_result(result: results.CaseResult, root: Path) -> Side:
    """The engine's sample of a result whose files lie below ``root``."""
    resolved, ledger = (part.get("candidate", {}) for part in (result.resolved, result.ledger))
    return Side(
        case=result.id,
        kind="self",
        origin=origin_of(result.case, resolved, ledger),
        read=lambda: saved.read(result, root),
    )


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """Of the parts that both have (a run knows no checkpoint digests)."""
    for name in dict.fromkeys((*old, *new)):
        part = name.partition(".")[0]
        both = all(any(key.partition(".")[0] == part for key in side) for side in (old, new))
        if both and old.get(name) != new.get(name):
            yield f"{name}: {_short(old.get(name, _UNKNOWN))} -> {_short(new.get(name, _UNKNOWN))}"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested objects as dotted names."""
    flat: dict[str, Any] = {}
    for name, item in value.items():
        flat |= _flat(item, f"{prefix}{name}.") if isinstance(item, dict) else {f"{prefix}{name}": item}
    return flat
