"""results.json: the one truth that reports, JUnit files, summaries and merged shards are made from.

Schema ``conformance.results/1``::

    {"schema", "run": {started, finished, seconds, command, shard, ledger}, "cases": [CaseResult],
     "counts": {verdict: n}, "exit_code": n}

Every case that was asked for is in ``cases``, one object a case and gate, whatever happened to it.
Paths are relative to the folder of the results file and stay inside it.
"""

from __future__ import annotations

import types
import typing
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path, PurePosixPath
from typing import Any

from conformance.case import Case
from conformance.errors import InputError, bad_field
from conformance.jsonio import number, read_json
from conformance.verdicts import Verdict, exit_code

SCHEMA = "conformance.results/1"
GATES = ("self", "reference", "parallel")


@dataclass(frozen=True, kw_only=True)
class MetricResult:
    """One metric of a case. ``value`` is the mean over frames (or streams), ``worst`` the worst of them;
    the limit, where there is one, holds for ``worst`` and is inclusive. ``note`` says why it was not measured.
    """

    value: float | None
    worst: float | None
    limit: float | None = None
    ok: bool | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class LatentResult:
    """Distance of one latent stream from the reference's."""

    rel_l2: float
    max_abs: float
    norm_ratio: float
    cosine: float
    hash_equal: bool


@dataclass(frozen=True, kw_only=True)
class FrameResult:
    """One judged frame: output ``batch``, frame ``index``, its metrics and the files that show it."""

    batch: int
    index: int
    metrics: dict[str, float]
    candidate: str = ""
    reference: str = ""
    heat: str = ""


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """Relative L2 of the latents at the start of a step (the last entry is the final state)."""

    step: int
    video: float | None
    audio: float | None


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """The first tap whose hash differs, in the candidate's order, and how large the difference is.

    rel_l2 and max_abs are None where a side's tensors were not kept or the shapes differ. compared and
    differing count the taps both sides have; missing names those only one side has.
    """

    tap: str
    rel_l2: float | None
    max_abs: float | None
    candidate: dict[str, Any]
    reference: dict[str, Any]
    compared: int
    differing: int
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TapResult:
    """One tap that the parallel gate judges or names. role: what it is judged as, or ``first`` or ``worst`` to differ.

    limit: of the relative L2, inclusive; None for a tap that is only named. ulps: elements by how many representable
    numbers of the tap's dtype lie between both sides: ``0``, ``1``, ``2-3``, ``4-7``...; empty where not counted.
    """

    tap: str
    role: str
    rel_l2: float | None
    max_abs: float | None
    limit: float | None = None
    ok: bool | None = None
    ulps: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class CaseResult:
    """Everything known about one case and gate. The dictionaries ``resolved`` and ``ledger`` have the keys
    ``candidate`` and ``reference``; ``seconds`` has ``engine``, ``reference`` and ``judge``; ``evidence`` is
    the thresholds entry the limits come from; ``outputs`` holds the candidate's digests (``output_digests``); ``gap``
    is what the gap ledger says (``conformance.ledger_rules``) and ``oracle`` who is closer to the truth
    (``conformance.oracle``), both empty where nobody was asked; ``job`` identifies what was run, for resuming.
    """

    id: str
    gate: str
    verdict: Verdict
    reason: str
    axes: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, MetricResult] = field(default_factory=dict)
    latents: dict[str, LatentResult] = field(default_factory=dict)
    frames: tuple[FrameResult, ...] = ()
    steps: tuple[StepResult, ...] = ()
    divergence: Divergence | None = None
    taps: tuple[TapResult, ...] = ()
    case: dict[str, Any] = field(default_factory=dict)
    resolved: dict[str, Any] = field(default_factory=dict)
    ledger: dict[str, Any] = field(default_factory=dict)
    evidence: dict[str, Any] = field(default_factory=dict)
    shared: tuple[str, ...] = ()
    outputs: dict[str, str] = field(default_factory=dict)
    gap: dict[str, Any] = field(default_factory=dict)
    oracle: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    command: str = ""
    job: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def unjudged(case: Case, gate: str, verdict: Verdict, reason: str, *, seconds: dict[str, float]) -> CaseResult:
    """The result of a case that produced nothing to compare."""
    return CaseResult(
        id=case.id, gate=gate, verdict=verdict, reason=reason, axes=case.axes, case=case.as_dict(), seconds=seconds
    )


_NESTED: dict[str, tuple[type, str]] = {
    "metrics": (MetricResult, "map"),
    "latents": (LatentResult, "map"),
    "frames": (FrameResult, "list"),
    "steps": (StepResult, "list"),
    "divergence": (Divergence, "one"),
    "taps": (TapResult, "list"),
}
_NUMBERS = {"value", "worst", "limit", "rel_l2", "max_abs", "norm_ratio", "cosine", "video", "audio"}
_PATHS = {"candidate", "reference", "heat"}


def safe_path(where: str, path: Any) -> str:
    """A relative path that stays inside its root, or InputError."""
    if not isinstance(path, str) or "\\" in path or "\0" in path:
        raise bad_field(where, "path", path, "a relative path")
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts:
        raise bad_field(where, "path", path, "a path inside the results folder")
    return path


def _fits(value: Any, hint: Any) -> bool:
    """Whether a parsed value is of an annotated type (the few shapes that the classes above use)."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        return any(_fits(value, arg) for arg in args)
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(item, args[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(item, args[1]) for item in value.values())
    if hint is Any:
        return True
    return type(value) is (type(None) if hint is None else hint)


def _nested(cls: type, data: Any, where: str) -> Any:
    names = {item.name for item in fields(cls)}
    if not isinstance(data, dict) or data.keys() - names:
        raise InputError(f"{where}: expected an object with fields {sorted(names)}, got {data!r:.200}")
    values = dict(data)
    try:
        for name in _NUMBERS & values.keys():
            values[name] = None if values[name] is None else number(values[name])
        if cls is FrameResult:
            values["metrics"] = {str(name): number(value) for name, value in values["metrics"].items()}
            for name in _PATHS & values.keys():
                safe_path(where, values[name])
        if "missing" in values:
            values["missing"] = tuple(values["missing"])
        made = cls(**values)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise InputError(f"{where}: malformed {cls.__name__} ({error})") from None
    for name, hint in typing.get_type_hints(cls).items():
        if not _fits(getattr(made, name), hint):
            raise bad_field(where, name, getattr(made, name), f"of type {hint}")
    return made


def case_from_dict(data: Any, where: str) -> CaseResult:
    """Parse one entry of ``cases``. InputError names the place and the field."""
    if not isinstance(data, dict):
        raise InputError(f"{where}: expected an object, got {data!r:.80}")
    where = f"{where}, case {data.get('id')!r}"
    unknown = data.keys() - {item.name for item in fields(CaseResult)}
    if unknown:
        raise InputError(f"{where}: unknown field {sorted(unknown)[0]!r}")
    values = dict(data)
    for name, (cls, shape) in _NESTED.items():
        item = values.get(name)
        if item is None:
            values.pop(name, None)
        elif shape == "map" and isinstance(item, dict):
            values[name] = {key: _nested(cls, entry, f"{where}, {name}[{key!r}]") for key, entry in item.items()}
        elif shape == "list" and isinstance(item, list):
            values[name] = tuple(_nested(cls, entry, f"{where}, {name}[{i}]") for i, entry in enumerate(item))
        elif shape == "one":
            values[name] = _nested(cls, item, f"{where}, {name}")
        else:
            raise bad_field(where, name, item, "an object" if shape == "map" else "a list")
    for name in ("axes", "case", "resolved", "ledger", "evidence", "outputs", "gap", "oracle", "files", "seconds"):
        if not isinstance(values.get(name, {}), dict):
            raise bad_field(where, name, values[name], "an object")
    for path in values.get("files", {}).values():
        safe_path(where, path)
    if not isinstance(values.get("id"), str) or not values["id"]:
        raise bad_field(where, "id", values.get("id"), "a case id")
    if values.get("gate") not in GATES:
        raise bad_field(where, "gate", values.get("gate"), f"one of {GATES}")
    try:
        values["verdict"] = Verdict(str(values.get("verdict")))
    except ValueError:
        raise bad_field(where, "verdict", values.get("verdict"), f"one of {[str(v) for v in Verdict]}") from None
    for name in ("reason", "command", "job"):
        if not isinstance(values.get(name, None if name == "reason" else ""), str):
            raise bad_field(where, name, values.get(name), "a text")
    shared = values.get("shared", [])
    if not isinstance(shared, list) or not all(isinstance(name, str) for name in shared):
        raise bad_field(where, "shared", shared, "a list of names")
    values["shared"] = tuple(shared)
    for field_name in ("axes", "outputs"):
        for name, text in values.get(field_name, {}).items():
            if not isinstance(text, str):
                raise bad_field(where, f"{field_name}[{name!r}]", text, "a text")
    try:
        values["seconds"] = {name: number(value) for name, value in values.get("seconds", {}).items()}
    except ValueError as error:
        raise InputError(f"{where}: seconds: {error}") from None
    return CaseResult(**values)


@dataclass(frozen=True, kw_only=True)
class Results:
    """A whole run (or a shard, or a merge of shards)."""

    run: dict[str, Any]
    cases: tuple[CaseResult, ...]

    @property
    def counts(self) -> dict[str, int]:
        return dict(sorted(Counter(str(case.verdict) for case in self.cases).items()))

    @property
    def exit_code(self) -> int:
        return exit_code(case.verdict for case in self.cases)

    def as_dict(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "run": self.run,
            "cases": [case.as_dict() for case in self.cases],
            "counts": self.counts,
            "exit_code": self.exit_code,
        }


def load(path: Path) -> Results:
    """Read a results file. InputError names the file and what is wrong in it."""
    data = read_json(path)
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        found = data.get("schema") if isinstance(data, dict) else type(data).__name__
        raise bad_field(str(path), "schema", found, repr(SCHEMA))
    if not isinstance(data.get("run"), dict) or not isinstance(data.get("cases"), list):
        raise InputError(f"{path}: expected an object 'run' and a list 'cases'")
    cases = tuple(case_from_dict(case, f"{path}, cases[{i}]") for i, case in enumerate(data["cases"]))
    check_unique(cases, str(path))
    return Results(run=data["run"], cases=cases)


def check_unique(cases: Iterable[CaseResult], where: str) -> None:
    """InputError when a case and gate appear twice."""
    seen = Counter((case.id, case.gate) for case in cases)
    twice = [key for key, count in seen.items() if count > 1]
    if twice:
        raise InputError(f"{where}: case {twice[0][0]!r} has more than one result for gate {twice[0][1]!r}")
