"""Did both sides compute the same thing? Asked before any number is compared."""

from __future__ import annotations

from collections.abc import Mapping

from conformance.generator import HANDSHAKE
from conformance.jsonio import jsonable


def handshake(candidate_resolved: Mapping[str, object], reference_resolved: Mapping[str, object]) -> str | None:
    """The first of the ``HANDSHAKE`` parameters that a side lacks or that differs, as a sentence; None when equal."""
    for key in HANDSHAKE:
        lacking = [
            side
            for side, resolved in (("candidate", candidate_resolved), ("reference", reference_resolved))
            if key not in resolved
        ]
        if lacking:
            return f"different inputs: {key} is missing from the {' and the '.join(lacking)}"
        different = _difference(key, jsonable(candidate_resolved[key]), jsonable(reference_resolved[key]))
        if different:
            path, mine, theirs = different
            return f"different inputs: {path} is {mine} for the candidate and {theirs} for the reference"
    return None


def _difference(path: str, mine: object, theirs: object) -> tuple[str, str, str] | None:
    """Path and both values of the first difference of two JSON values."""
    if isinstance(mine, dict) and isinstance(theirs, dict):
        for key in (*mine, *(key for key in theirs if key not in mine)):
            if key not in mine:
                return f"{path}.{key}", "absent", _value(theirs[key])
            if key not in theirs:
                return f"{path}.{key}", _value(mine[key]), "absent"
            if found := _difference(f"{path}.{key}", mine[key], theirs[key]):
                return found
        return None
    if isinstance(mine, list) and isinstance(theirs, list) and len(mine) == len(theirs):
        pairs = enumerate(zip(mine, theirs, strict=True))
        return next((found for i, pair in pairs if (found := _difference(f"{path}[{i}]", *pair))), None)
    if mine == theirs and isinstance(mine, bool) == isinstance(theirs, bool):
        return None
    return path, _value(mine), _value(theirs)


def _value(value: object) -> str:
    """A value as it stands in a sentence: digests by their first twelve digits, long values cut."""
    text = value if isinstance(value, str) else repr(value)
    if len(text) >= 32 and not set(text) - set("0123456789abcdef"):
        return f"{text[:12]}..."
    return text if len(text) <= 120 else f"{text[:120]}..."
