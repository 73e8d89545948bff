"""``conformance compare``"""

from __future__ import annotations

import argparse
import math

import thresholds
from conformance.commands.output import check_writable
from conformance.commands.show import check_targets, show
from conformance.compare_paths import compare_paths
from conformance.errors import InputError, bad_field
from conformance.metrics import REGISTRY
from conformance.metrics.clip import ClipScorer
from reports.render import write_report


def _limits(options: argparse.Namespace) -> dict[str, float] | None:
    if options.case and options.limit:
        raise InputError("command line: give --limit or --case, not both")
    if options.case:
        entry = thresholds.load(options.thresholds).for_case(options.case)
        if entry is None:
            raise bad_field("command line", "case", options.case, "a case that has thresholds")
        return entry.limits
    limits: dict[str, float] = {}
    for text in options.limit:
        name, _, value = text.partition("=")
        try:
            limit = float(value)
            if math.isnan(limit):
                raise ValueError
        except ValueError:
            raise bad_field("command line", "limit", text, "METRIC=VALUE such as ssim=0.95") from None
        if name not in REGISTRY:
            raise bad_field("command line", "limit", name, f"one of {sorted(REGISTRY)}")
        if name in limits:
            raise bad_field("command line", "limit", text, f"one limit on {name}")
        limits[name] = limit
    return limits or None


def main(options: argparse.Namespace) -> int:
    check_targets(options)
    check_writable("--out", options.out / "index.html")
    results = compare_paths(
        options.a,
        options.b,
        limits=_limits(options),
        clip=ClipScorer.load(options.clip),
        out=options.out,
        name=f"{options.a.name}-vs-{options.b.name}",
        exclude=tuple(options.exclude),
        common=options.common,
    )
    write_report(results, options.out)
    return show(results, options)
