"""What the page needs to propose that an output be accepted: which files were seen, by hash; and reading proposals."""

from __future__ import annotations

import hashlib
import json
from datetime import date
from pathlib import Path
from typing import Any

from conformance.acceptance import Acceptance, parse
from conformance.errors import InputError, bad_field
from conformance.jsonio import read_json
from conformance.results import CaseResult, Results
from conformance.verdicts import Verdict
from reports.text import inside

SCHEMA = "conformance.accept/1"
GATES = ("self", "reference")  # a layout is judged against one device of the same run: nothing is stored for it
_FIELDS = {"case", "gate", "job", "old", "new", "reason", "owner", "expires"}
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


def read_patch(file: Path, root: Path, run: Results, today: date) -> tuple[tuple[CaseResult, Acceptance], ...]:
    """Results of a run that a patch of its page wants accepted, each with who says so, why and until when.

    root: the run's folder. InputError when the patch is none, names what the run does not hold, or was made of other
    files than lie there now; then nothing of it counts.
    """
    data = read_json(file)
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise bad_field(str(file), "schema", data.get("schema") if isinstance(data, dict) else data, repr(SCHEMA))
    entries = data.get("entries")
    if not isinstance(entries, list) or not entries:
        raise bad_field(str(file), "entries", entries, "a list with at least one")
    return tuple(_checked(entry, f"{file}: entries[{i}]", root, run, today) for i, entry in enumerate(entries))


def _checked(entry: Any, where: str, root: Path, run: Results, today: date) -> tuple[CaseResult, Acceptance]:
    if not isinstance(entry, dict) or not entry.keys() >= _FIELDS:
        raise bad_field(where, "entry", entry, f"an object with fields {sorted(_FIELDS)}")
    found = [case for case in run.cases if (case.id, case.gate) == (entry["case"], entry["gate"])]
    if not found or entry["gate"] not in GATES:
        raise InputError(f"{where}: case {entry['case']!r}, gate {entry['gate']!r}: the run holds no such result")
    (case,) = found
    now = {"job": case.job, "new": fingerprint(root, case, "candidate"), "old": fingerprint(root, case, "reference")}
    for name, value in now.items():
        if entry[name] != value:
            raise bad_field(where, name, entry[name], f"{value!r}, as the run has it: the patch is of another one")
    reason = " ".join(entry["reason"].split()) if isinstance(entry["reason"], str) else entry["reason"]
    said = {"reason": reason, "owner": entry["owner"], "date": today.isoformat(), "expires": entry["expires"]}
    return case, parse(said, where)


def _sha256(root: Path, link: str) -> str:
    file = inside(root, link)
    return hashlib.sha256(file.read_bytes()).hexdigest() if file else ""
