"""The matrix of cases, and how a command line picks from it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from conformance.case import Case
from conformance.errors import InputError, bad_field
from conformance.matrix import ltx2

SUITES = ("default", "official", "official-1.2.0", "parallel", "full")


def all_cases() -> tuple[Case, ...]:
    """Every case, in the order reports list them.

    ``default`` needs nothing but the project's dependencies, ``official`` the packages of ``docs/official.md`` in
    version 1.0.0, ``official-1.2.0`` a checkout of that version; ``parallel``, the cases on several ranks, nothing more
    than the first; ``full`` holds every case.
    """
    cases = (*ltx2.cases(),)
    ids = [case.id for case in cases]
    if len(set(ids)) != len(ids):
        raise AssertionError(f"duplicate case ids: {sorted({i for i in ids if ids.count(i) > 1})}")
    return cases


def matches(case_id: str, pattern: str) -> bool:
    """A glob over the whole id, or over its leading parts: ``ltx-2.3``, ``ltx-2/one-stage-t2v/cfg``.

    A pattern with a ``+`` has reached the last part: a whole id is not a leading part of itself ``+kernels``.
    """
    rests = ("", "/*", "@*") if "+" in pattern else ("", "/*", "@*", "+*")
    return any(fnmatchcase(case_id, pattern + rest) for rest in rests)


def select(cases: Iterable[Case], patterns: Sequence[str], suite: str) -> list[Case]:
    """Cases of the suite, or those of it that the patterns name, each once, in matrix order.

    A pattern that names only cases of other suites means those. InputError when it matches nothing: it names the
    nearest id.
    """
    cases = list(cases)
    if suite not in SUITES:
        raise bad_field("command line", "suite", suite, f"one of {SUITES}")
    inside = [case for case in cases if suite == "full" or suite in case.suites]
    if not patterns:
        return inside
    chosen: set[str] = set()
    for pattern in patterns:
        named = [case.id for case in inside if matches(case.id, pattern)]
        named = named or [case.id for case in cases if matches(case.id, pattern)]
        if not named:
            near = difflib.get_close_matches(pattern, [case.id for case in cases], n=1, cutoff=0.3)
            hint = f"; nearest is {near[0]!r}" if near else ""
            raise InputError(f"no case matches {pattern!r}{hint} (conformance list shows all {len(cases)})")
        chosen.update(named)
    return [case for case in cases if case.id in chosen]


def parse_shard(text: str) -> tuple[int, int]:
    """``i/n`` with 1 <= i <= n. InputError otherwise."""
    index, slash, total = text.partition("/")
    if slash and index.isdecimal() and total.isdecimal() and 1 <= int(index) <= int(total):
        return int(index), int(total)
    raise bad_field("command line", "shard", text, "i/n with 1 <= i <= n, such as 2/4")


def shard(cases: Sequence[Case], index: int, total: int) -> list[Case]:
    """Every n-th case from the i-th: neighbours, which tend to cost alike, go to different shards."""
    return list(cases[index - 1 :: total])
