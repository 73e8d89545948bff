"""The content-addressed store of references.

Layout under its root::

    manifests/<slug of the case id>.<kind>.json   one reference, see ``manifest.py``
    objects/<first 2 digits>/<sha256><suffix>     one artifact, shared by every manifest that names it

An object is written once and never again; a manifest is replaced as a whole. What counts as stale is in ``stale.py``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from conformance.acceptance import Acceptance
from conformance.case import Case, slug
from conformance.errors import InputError, ReferenceMissing, ReferenceStale, bad_field
from conformance.generator import HANDSHAKE, Sample
from conformance.jsonio import dumps, jsonable, write_atomic
from ground_truth import artifacts
from ground_truth.manifest import KINDS, Artifact, Manifest, describe, identity, load
from ground_truth.stale import differences

SHIPPED = Path(__file__).parent / "entries"


class Store:
    """References below ``root``; None is the folder shipped with the project. An absent folder is an empty store."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = SHIPPED if root is None else root
        if self.root.exists() and not self.root.is_dir():
            raise InputError(f"{self.root}: ground truth must be a folder")

    def put(
        self,
        case: Case,
        sample: Sample,
        *,
        kind: str,
        generator: str,
        checkpoint: dict[str, str],
        ledger: dict[str, Any],
        reason: str,
        accepted: Acceptance | None = None,
    ) -> Path:
        """Store a sample as the case's reference of this kind and return its manifest's path.

        Objects are written first, the manifest last and atomically: a reader sees the old reference or the new one.
        The same sample again changes nothing, the date included. ledger: ``environment.ledger`` of the run that made
        it. InputError for an incomplete sample, an unknown kind, a blank reason, or a damaged object of the same name.
        """
        where = f"reference of {case.id}"
        if kind not in KINDS:
            raise bad_field(where, "kind", kind, f"one of {KINDS}")
        for name, text in (("generator", generator), ("reason", reason)):
            if not text.strip():
                raise bad_field(where, name, text, "a text")
        for name in HANDSHAKE:
            if name not in sample.resolved:
                raise InputError(f"{where}: 'resolved' lacks {name!r}; expected all of {list(HANDSHAKE)}")
        identity(ledger, where)
        recorded = jsonable({**sample.ledger, **ledger})
        dumps([sample.resolved, recorded])  # a value that JSON cannot hold raises here, before anything is written
        stored = []
        for artifact, data in artifacts.encode(sample):
            self._write(artifact, data)
            stored.append(artifact)
        manifest = Manifest(
            **describe(case),
            kind=kind,
            generator=generator,
            checkpoint=dict(checkpoint),
            ledger=recorded,
            resolved=jsonable(sample.resolved),
            shared=sample.shared,
            frames=sample.frames.shape,
            audio_rate=sample.audio_rate,
            artifacts=tuple(stored),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            reason=reason,
            accepted=accepted,
        )
        path = self.path(case.id, kind)
        if not (path.is_file() and self._same(path, manifest)):
            write_atomic(path, manifest.dump())
        return path

    def get(self, case: Case, *, kind: str, checkpoint: dict[str, str], ledger: dict[str, Any]) -> Sample:
        """The stored sample, every artifact checked against its sha256.

        ReferenceMissing when there is none, ReferenceStale naming what differs from this case, checkpoint (component ->
        digest) or environment, or when its acceptance has expired, InputError when manifest or artifact is malformed,
        missing, truncated or changed.
        """
        path = self.path(case.id, kind)
        if not path.is_file():
            raise ReferenceMissing(f"no {kind} reference of {case.id} in {self.root}")
        manifest = self._manifest(path)
        changed = differences(manifest, case, checkpoint, ledger, str(path))
        if changed:
            raise ReferenceStale(f"{path.name}: {'; '.join(changed)}")
        if manifest.accepted is not None and manifest.accepted.expired(datetime.now(UTC).date()):
            raise ReferenceStale(f"{path.name}: {manifest.accepted}; that day is over")
        return artifacts.decode(manifest, self._read, str(path))

    def sample(self, manifest: Manifest) -> Sample:
        """The sample of one of ``entries``, however old. InputError as ``get``."""
        return artifacts.decode(manifest, self._read, str(self.path(manifest.case_id, manifest.kind)))

    def find(self, case_id: str, kind: str) -> Manifest | None:
        """The reference of this case and kind, however old."""
        path = self.path(case_id, kind)
        return self._manifest(path) if path.is_file() else None

    def entries(self) -> list[Manifest]:
        """Every manifest, by file name. InputError on the first malformed one."""
        return [self._manifest(path) for path in self.paths()]

    def verify(self) -> list[str]:
        """Everything that is wrong with the store, one line each; empty when every reference can be read in full."""
        problems: list[str] = []
        used: set[str] = set()
        for path in self.paths():
            try:
                manifest = self._manifest(path)
            except InputError as error:
                problems.append(str(error))
                continue
            used |= {artifact.file for artifact in manifest.artifacts}
            broken = list(self._broken(manifest))
            problems += broken
            if not broken:
                try:
                    artifacts.decode(manifest, self._read, str(path))
                except InputError as error:
                    problems.append(str(error))
        return problems + [f"{path}: orphan: no manifest refers to it" for path in self._orphans(used)]

    def prune(self) -> list[Path]:
        """Delete the files under ``objects`` that no manifest refers to, and return them. Not beside a running put."""
        used = {artifact.file for manifest in self.entries() for artifact in manifest.artifacts}
        orphans = self._orphans(used)
        for path in orphans:
            path.unlink()
        return orphans

    def path(self, case_id: str, kind: str) -> Path:
        """Where the manifest of a case and kind lies, or would."""
        return self.root / "manifests" / f"{slug(case_id)}.{kind}.json"

    def paths(self) -> list[Path]:
        """The files of all manifests, well-formed or not, by name."""
        return sorted((self.root / "manifests").glob("*.json"))

    def _manifest(self, path: Path) -> Manifest:
        manifest = load(path)
        expected = self.path(manifest.case_id, manifest.kind)
        if path != expected:  # a copy under another name would be a second reference of the same case
            raise InputError(
                f"{path}: holds the {manifest.kind} reference of {manifest.case_id!r}; expected {expected}"
            )
        return manifest

    def _same(self, path: Path, manifest: Manifest) -> bool:
        try:
            return self._manifest(path).content() == manifest.content()
        except InputError:
            return False  # a damaged manifest is what put repairs

    def _object(self, artifact: Artifact) -> Path:
        path = self.root / artifact.file
        if not path.resolve().is_relative_to(self.root.resolve()):
            raise InputError(f"{path}: leads outside of the store {self.root}")
        return path

    def _read(self, artifact: Artifact) -> bytes:
        path = self._object(artifact)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path}: {artifact.name} cannot be read: {error.strerror or error}") from None
        if len(data) != artifact.bytes:
            raise InputError(f"{path}: {artifact.name} has {len(data)} bytes; expected {artifact.bytes}")
        if hashlib.sha256(data).hexdigest() != artifact.sha256:
            raise InputError(f"{path}: {artifact.name} was changed: its sha256 is not {artifact.sha256}")
        return data

    def _write(self, artifact: Artifact, data: bytes) -> None:
        path = self._object(artifact)
        if path.exists():
            self._read(artifact)  # never rewritten: a damaged one is reported, for a person to look at
        else:
            write_atomic(path, data)

    def _broken(self, manifest: Manifest) -> Iterator[str]:
        for artifact in manifest.artifacts:
            try:
                self._read(artifact)
            except InputError as error:
                yield str(error)

    def _orphans(self, used: set[str]) -> list[Path]:
        files = (path for path in (self.root / "objects").rglob("*") if path.is_symlink() or not path.is_dir())
        return sorted(path for path in files if path.relative_to(self.root).as_posix() not in used)
