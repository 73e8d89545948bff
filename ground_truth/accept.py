"""Accepting what a run produced: a new output as the reference of the self gate, or a gap into the ledger.

Both take a person's reason, owner and end, and leave a text for a reviewer. Nothing else accepts anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path

from conformance import ledger as gaps
from conformance.acceptance import Acceptance, parse
from conformance.case import Case
from conformance.errors import InputError, bad_field
from conformance.jsonio import write_atomic
from conformance.ledger import Cohort, Ledger
from conformance.ledger_rules import accepted, sizes
from conformance.proposal import file_name, patch
from conformance.results import CaseResult
from conformance.verdicts import Verdict
from ground_truth.diff import Side, difference, of_result, origin_of
from ground_truth.saved import read
from ground_truth.store import Store

Digests = Callable[[Case], dict[str, str]]


def acceptance(reason: str, owner: str, expires: str, today: date) -> Acceptance:
    """InputError for a blank text or an end that is no date to come."""
    return parse({"reason": reason, "owner": owner, "date": today.isoformat(), "expires": expires}, "command line")


def accept_output(
    result: CaseResult, root: Path, store: Store, made: Acceptance, checkpoint: Digests
) -> tuple[Path, str]:
    """Store the engine's sample of a result as the case's ``self`` reference; its manifest and the reviewer's text.

    The text is written beside the manifest. checkpoint: digests of the components that a case reads. InputError when
    the run saved no sample, its files were changed, values are not finite, or the checkpoint is another one by now.
    """
    sample = read(result, root)
    if "non-finite" in result.reason or not all(tap.finite for tap in sample.trace.values()):
        raise InputError(f"{result.id}: holds values that are not finite; nothing of that kind is accepted")
    case = Case.from_dict(result.case)
    digests = checkpoint(case)
    weights = sample.resolved.get("weights", {})
    other = [name for name in weights if name in digests and weights[name] != digests[name]]
    if other:
        raise InputError(f"{result.id}: {other[0]} of the checkpoint is not what the run used; give its --checkpoint")
    previous = store.find(case.id, "self")
    new = of_result(result, root)
    if previous is None:
        text = f"{case.id} (self): first accepted output\n"
    else:
        origin = origin_of(previous.case, previous.resolved, previous.ledger)
        old = Side(case=case.id, kind="self", origin=origin, read=lambda: store.sample(previous))
        text = "\n".join(difference(old, new).lines()) + "\n"
    text += f"  {made}\n"
    path = store.put(
        case,
        sample,
        kind="self",
        generator=result.command,
        checkpoint=digests,
        ledger=sample.ledger,
        reason=made.reason,
        accepted=made,
    )
    write_atomic(path.with_suffix(".txt"), text)
    return path, text


def accept_gaps(results: Sequence[CaseResult], file: Path | None, made: Acceptance) -> tuple[Path, str]:
    """Put the gaps of results into the ledger; its path and the patch, for a reviewer.

    file: the ledger; None is the shipped one of the results' device. A file that is not there is begun. InputError for
    a result that is exact, violates a limit, was not measured, or is of another cohort than the ledger.
    """
    cohort = Cohort.of(results[0].ledger["candidate"])
    path = file or gaps.SHIPPED / file_name(Ledger(cohort, {}))
    old = gaps.read(path) if path.is_file() else Ledger(cohort, {})
    new = old
    for result in results:
        new = accepted(_acceptable(result, old, path), new, made)
    write_atomic(path, new.dump())
    return path, patch(old, new)


def _acceptable(result: CaseResult, ledger: Ledger, path: Path) -> CaseResult:
    where = f"{result.id}, gate {result.gate!r}"
    violated = [name for name, metric in result.metrics.items() if metric.ok is False]
    measured = sizes(result.metrics)
    if result.gate not in gaps.GATES:
        raise bad_field(where, "gate", result.gate, f"one of {gaps.GATES}: bounds by layout judge the others")
    if result.verdict == Verdict.PASS_EXACT:
        raise InputError(f"{where}: is exact; there is no gap to accept")
    if any(size != size for size in measured.values()):
        raise InputError(f"{where}: holds values that are not finite; nothing of that kind is accepted")
    if violated:
        raise InputError(f"{where}: violates its limit on {violated[0]}; the ledger makes no violated limit green")
    if result.verdict not in (Verdict.FAIL, Verdict.PASS, Verdict.WAIVED, Verdict.CALIBRATION_NEEDED) or not measured:
        raise InputError(f"{where}: is {result.verdict}, with nothing to measure; expected a case that was compared")
    if away := ledger.cohort.unlike(Cohort.of(result.ledger["candidate"])):
        raise InputError(f"{where}: {path} is of {', '.join(away)}; name a file for this cohort with --ledger")
    return result
