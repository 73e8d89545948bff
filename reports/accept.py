"""What the page needs to propose that an output be accepted: which files of it were seen, by hash."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from conformance.results import CaseResult
from conformance.verdicts import Verdict
from reports.text import inside

SCHEMA = "conformance.accept/1"
GATES = ("self", "reference")  # a layout is judged against one device of the same run: nothing is stored for it
_VERDICTS = (Verdict.FAIL, Verdict.CALIBRATION_NEEDED, Verdict.STALE_REFERENCE, Verdict.NO_REFERENCE)


def fingerprint(root: Path, case: CaseResult, side: str) -> dict[str, str]:
    """sha256 of one side's saved output (``candidate`` or ``reference``) by kind: frames, latents, audio.

    ``frames`` is over one line ``BATCH INDEX SHA256`` a frame, in order, each with its line end. Kinds without files
    are left out; when a file is missing under ``root`` the result is empty.
    """
    links = {(frame.batch, frame.index): getattr(frame, side) for frame in case.frames}
    frames = {key: _sha256(root, link) for key, link in sorted(links.items()) if link}
    others = {kind: case.files.get(f"{side}_{kind}", "") for kind in ("latents", "audio")}
    found = {kind: _sha256(root, link) for kind, link in others.items() if link}
    if "" in frames.values() or "" in found.values():
        return {}
    if frames:
        lines = "".join(f"{batch} {index} {digest}\n" for (batch, index), digest in frames.items())
        found = {"frames": hashlib.sha256(lines.encode()).hexdigest(), **found}
    return found


def acceptance(root: Path, case: CaseResult) -> str:
    """JSON for the page: what accepting this output would name. Empty when there is nothing that could be accepted."""
    if case.gate not in GATES or case.verdict not in _VERDICTS or not case.case:
        return ""
    new = fingerprint(root, case, "candidate")
    if not new:
        return ""
    old = fingerprint(root, case, "reference")
    seen = {"case": case.id, "gate": case.gate, "verdict": str(case.verdict), "job": case.job, "old": old, "new": new}
    return json.dumps(seen)


def _sha256(root: Path, link: str) -> str:
    file = inside(root, link)
    return hashlib.sha256(file.read_bytes()).hexdigest() if file else ""
