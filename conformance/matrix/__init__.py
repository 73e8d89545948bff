"""The matrix of cases, and how a command line picks from it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from conformance.case import Case
from conformance.errors import InputError, bad_field
from conformance.matrix import ltx2

SUITES = ("default", "full")


def all_cases() -> tuple[Case, ...]:
    """Every case, in the order reports list them. ``full`` holds every case, ``default`` what CI runs."""
    cases = (*ltx2.cases(),)
    ids = [case.id for case in cases]
    if len(set(ids)) != len(ids):
        raise AssertionError(f"duplicate case ids: {sorted({i for i in ids if ids.count(i) > 1})}")
    return cases


def _matches(case_id: str, pattern: str) -> bool:
    """A glob over the whole id, or over its leading parts: ``ltx-2.3``, ``ltx-2/one-stage-t2v/cfg``."""
    return any(fnmatchcase(case_id, pattern + rest) for rest in ("", "/*", "@*", "+*"))


def select(cases: Iterable[Case], patterns: Sequence[str], suite: str) -> list[Case]:
    """Cases of the suite, or those that the patterns name (whatever their suite), each once, in matrix order.

    InputError when a pattern matches nothing: it names the nearest id.
    """
    cases = list(cases)
    if not patterns:
        if suite not in SUITES:
            raise bad_field("command line", "suite", suite, f"one of {SUITES}")
        return [case for case in cases if suite == "full" or suite in case.suites]
    for pattern in patterns:
        if not any(_matches(case.id, pattern) for case in cases):
            near = difflib.get_close_matches(pattern, [case.id for case in cases], n=1, cutoff=0.3)
            hint = f"; nearest is {near[0]!r}" if near else ""
            raise InputError(f"no case matches {pattern!r}{hint} (conformance list shows all {len(cases)})")
    return [case for case in cases if any(_matches(case.id, pattern) for pattern in patterns)]


def parse_shard(text: str) -> tuple[int, int]:
    """``i/n`` with 1 <= i <= n. InputError otherwise."""
    index, slash, total = text.partition("/")
    if slash and index.isdecimal() and total.isdecimal() and 1 <= int(index) <= int(total):
        return int(index), int(total)
    raise bad_field("command line", "shard", text, "i/n with 1 <= i <= n, such as 2/4")


def shard(cases: Sequence[Case], index: int, total: int) -> list[Case]:
    """Every n-th case from the i-th: neighbours, which tend to cost alike, go to different shards."""
    return list(cases[index - 1 :: total])
