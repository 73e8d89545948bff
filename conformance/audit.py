"""What saved results and a store give away without any engine: flags that do nothing, references that rot. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from conformance.jsonio import digest

# Fields of a case that must not change a bit: a layout that moves data, kernels that equal their eager twins.
_EQUAL_BY_DESIGN = ("layout", "kernels")
# Fields that are no part of the request: names, and where the case runs.
_IGNORED = ("suites", "variant")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """kind: no-effect, unused, stale, expired, duplicate or unlike. about: case ids or names of references."""

    kind: str
    about: tuple[str, ...]
    sentence: str


def without_effect(cases: Mapping[str, tuple[dict[str, Any], dict[str, str]]]) -> list[Finding]:
    """Cases whose outputs are equal bit for bit though a field differs: the field does nothing there.

    cases: by id, ``Case.as_dict()`` and ``output_digests``. Of the pairs of a group those with the fewest different
    fields are named. Layout and kernels must not matter, so they explain nothing and are no finding.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for name, (_, outputs) in cases.items():
        if outputs:
            groups[digest(outputs)].append(name)
    found = []
    for names in groups.values():
        pairs = {}
        for one, other in combinations(names, 2):
            fields = differing(cases[one][0], cases[other][0])
            if fields:
                pairs[one, other] = fields
        fewest = min((len(fields) for fields in pairs.values()), default=0)
        for (one, other), fields in pairs.items():
            if len(fields) == fewest:
                text = f"{one} and {other} put out the same bits though {', '.join(fields)} differ"
                found.append(Finding(kind="no-effect", about=(one, other), sentence=text))
    return found


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Dotted names of the fields that two cases differ in, but for those that must not matter."""
    mine, theirs = _flat(one), _flat(other)
    return [
        name
        for name in dict.fromkeys((*mine, *theirs))
        if mine.get(name) != theirs.get(name) and name.partition(".")[0] not in (*_EQUAL_BY_DESIGN, *_IGNORED)
    ]


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What the audit reads of a manifest. unused: why no case reads it. stale: what it and a run of today differ in."""

    name: str
    case: dict[str, Any]
    outputs: str
    environment: Mapping[str, str]
    checkpoint: Mapping[str, str]
    unused: str
    stale: tuple[str, ...]
    expired: str


def stored(entries: Sequence[Stored]) -> list[Finding]:
    """References that no case reads, that no run can use, that are copies of another or made unlike the others."""
    found = []
    for entry in entries:
        if entry.unused:
            found.append(_one("unused", entry, f"no case reads it: {entry.unused}"))
        if entry.stale:
            found.append(_one("stale", entry, f"is stale: {'; '.join(entry.stale)}"))
        if entry.expired:
            found.append(_one("expired", entry, entry.expired))
    for one, other in combinations(entries, 2):
        if one.outputs == other.outputs and (fields := differing(one.case, other.case)):
            text = f"{one.name} and {other.name} hold the same bits though {', '.join(fields)} differ"
            found.append(Finding(kind="duplicate", about=(one.name, other.name), sentence=text))
    found += _unlike(entries, "environment", [entry.environment for entry in entries])
    by_model: dict[str, list[Stored]] = defaultdict(list)
    for entry in entries:
        by_model[str(entry.case.get("model"))].append(entry)
    for group in by_model.values():
        found += _unlike(group, "checkpoint", [entry.checkpoint for entry in group])
    return found


def _unlike(entries: Sequence[Stored], what: str, values: Sequence[Mapping[str, str]]) -> Iterable[Finding]:
    """One finding a name that has more than one value; what an entry does not name counts for nothing."""
    for name in dict.fromkeys(name for value in values for name in value):
        by_value: dict[str, list[str]] = defaultdict(list)
        for entry, value in zip(entries, values, strict=True):
            if name in value:
                by_value[value[name]].append(entry.name)
        if len(by_value) > 1:
            parts = [f"{value[:16]} in {len(names)} ({names[0]})" for value, names in by_value.items()]
            about = tuple(names[0] for names in by_value.values())
            yield Finding(kind="unlike", about=about, sentence=f"{what} {name} is {', '.join(parts)}")


def _one(kind: str, entry: Stored, sentence: str) -> Finding:
    return Finding(kind=kind, about=(entry.name,), sentence=f"{entry.name}: {sentence}")


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested objects as dotted names, lists as they are."""
    flat: dict[str, Any] = {}
    for name, item in value.items():
        flat |= _flat(item, f"{prefix}{name}.") if isinstance(item, dict) else {f"{prefix}{name}": item}
    return flat
