"""The manifest of one stored reference: what it is, what it was made from, and the sha256 of every artifact.

Schema ``conformance.ground_truth/2``, a JSON object with the fields of :class:`Manifest` plus ``schema`` and ``digest``
(sha256 of everything else in it, so that an edited manifest is noticed like an edited artifact).
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from conformance.acceptance import Acceptance
from conformance.acceptance import parse as parse_acceptance
from conformance.case import Case
from conformance.errors import InputError, bad_field
from conformance.jsonio import digest, dumps, jsonable, read_json

SCHEMA = "conformance.ground_truth/2"
KINDS = ("official", "diffusers", "self")
# Role -> suffix of its objects. ``frame`` is one image, so that people can look; the others hold everything of a kind.
ROLES = {"frame": ".png", "latents": ".safetensors", "taps": ".safetensors", "audio": ".safetensors", "trace": ".json"}
# Packages whose release a reference is tied to, see ``stale.py``.
PACKAGES = ("torch", "diffusers", "transformers")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """One stored file: ``name`` within the sample (``frames/b00/f0000``), ``role``, sha256 and size in bytes."""

    name: str
    role: str
    sha256: str
    bytes: int

    @property
    def file(self) -> str:
        """Path of its object, relative to the root of the store."""
        return f"objects/{self.sha256[:2]}/{self.sha256}{ROLES[self.role]}"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """case: ``Case.as_dict()``. checkpoint: component -> digest. resolved, ledger: as in ``Sample``, JSON values.
    frames: shape [B,F,H,W,3]. audio_rate: Hz. shared: components that were the reference's own code. created:
    ISO 8601, UTC. reason: why this became the reference. accepted: who made a run's output the reference, and until
    when; None for one that was generated as such.
    """

    case_id: str
    case_digest: str
    case: dict[str, Any]
    kind: str
    generator: str
    checkpoint: dict[str, str]
    ledger: dict[str, Any]
    resolved: dict[str, Any]
    shared: tuple[str, ...]
    frames: tuple[int, ...]
    audio_rate: int | None
    artifacts: tuple[Artifact, ...]
    created: str
    reason: str
    accepted: Acceptance | None

    def dump(self) -> str:
        """The text of its file."""
        data = jsonable({"schema": SCHEMA, **asdict(self)})
        return dumps({**data, "digest": digest(data)}) + "\n"

    def content(self) -> dict[str, Any]:
        """Everything but the date: two puts of the same reference are equal here."""
        data = jsonable(asdict(self))
        del data["created"]
        return data


def case_digest(case: dict[str, Any]) -> str:
    """``Case.digest`` of a case's dictionary, also of one with other fields than today's ``Case``."""
    return digest({key: value for key, value in case.items() if key != "suites"})


def describe(case: Case) -> dict[str, Any]:
    """The fields of a manifest that name the case."""
    return {"case_id": case.id, "case_digest": case.digest, "case": jsonable(case.as_dict())}


def identity(ledger: Any, where: str) -> dict[str, str]:
    """The part of a ledger (``environment.ledger``) that a reference is tied to. InputError when it is not there."""
    try:
        found = {name: ledger["versions"][name].partition("+")[0] for name in PACKAGES}
        found["device"] = ledger["device"]["name"]
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{where}: ledger lacks versions of {list(PACKAGES)} or device.name ({error})") from None
    return found


def load(path: Path) -> Manifest:
    """Read and check a manifest. InputError names the file, the field, its value and what was expected."""
    where = str(path)
    data = read_json(path)
    names = {field.name for field in fields(Manifest)} | {"schema", "digest"}
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise bad_field(where, "schema", data.get("schema") if isinstance(data, dict) else data, repr(SCHEMA))
    for problem, keys in (("missing", names - data.keys()), ("unknown", data.keys() - names)):
        if keys:
            raise InputError(f"{where}: {problem} field {sorted(keys)[0]!r}; expected {sorted(names)}")
    recorded = data.pop("digest")
    try:
        actual = digest(data)
    except ValueError:
        raise InputError(f"{where}: holds a number or text that is not JSON") from None
    if recorded != actual:
        raise bad_field(where, "digest", recorded, f"{actual!r}, the manifest was changed after it was written")
    del data["schema"]
    for name in ("case", "checkpoint", "ledger", "resolved"):
        if not isinstance(data[name], dict):
            raise bad_field(where, name, data[name], "an object")
    for name in ("case_id", "case_digest", "generator", "created", "reason"):
        if not isinstance(data[name], str) or not data[name].strip():
            raise bad_field(where, name, data[name], "a text")
    if case_digest(data["case"]) != data["case_digest"]:
        raise bad_field(where, "case_digest", data["case_digest"], "the digest of 'case'")
    if data["kind"] not in KINDS:
        raise bad_field(where, "kind", data["kind"], f"one of {KINDS}")
    for name, value in data["checkpoint"].items():
        if not isinstance(value, str):
            raise bad_field(where, f"checkpoint.{name}", value, "a digest")
    identity(data["ledger"], where)
    rate = data["audio_rate"]
    if rate is not None and (type(rate) is not int or rate < 1):
        raise bad_field(where, "audio_rate", rate, "a positive whole number or null")
    shape = _list(data["frames"], where, "frames")
    if len(shape) != 5 or any(type(size) is not int or size < 1 for size in shape) or shape[4] != 3:
        raise bad_field(where, "frames", shape, "a shape [B,F,H,W,3]")
    shared = _list(data["shared"], where, "shared")
    if not all(isinstance(name, str) for name in shared):
        raise bad_field(where, "shared", shared, "a list of texts")
    items = [
        _artifact(item, f"{where}: artifacts[{i}]")
        for i, item in enumerate(_list(data["artifacts"], where, "artifacts"))
    ]
    if len({item.name for item in items}) != len(items):
        raise bad_field(where, "artifacts", sorted(item.name for item in items), "each name once")
    accepted = None if data["accepted"] is None else parse_acceptance(data["accepted"], f"{where}: accepted")
    parts = {"frames": tuple(shape), "shared": tuple(shared), "artifacts": tuple(items), "accepted": accepted}
    return Manifest(**{**data, **parts})


def _list(value: Any, where: str, field: str) -> list[Any]:
    if not isinstance(value, list):
        raise bad_field(where, field, value, "a list")
    return value


def _artifact(data: Any, where: str) -> Artifact:
    names = {field.name for field in fields(Artifact)}
    if not isinstance(data, dict) or data.keys() != names:
        raise InputError(f"{where}: is {data!r}; expected an object with fields {sorted(names)}")
    if not isinstance(data["name"], str) or not data["name"]:
        raise bad_field(where, "name", data["name"], "a text")
    if data["role"] not in list(ROLES):
        raise bad_field(where, "role", data["role"], f"one of {list(ROLES)}")
    # Digits only: the object's path is made of it, and no manifest may point outside the store.
    if not isinstance(data["sha256"], str) or not _SHA256.fullmatch(data["sha256"]):
        raise bad_field(where, "sha256", data["sha256"], "64 hexadecimal digits")
    if type(data["bytes"]) is not int or data["bytes"] < 0:
        raise bad_field(where, "bytes", data["bytes"], "a whole number, at least 0")
    return Artifact(**data)
