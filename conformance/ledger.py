"""The gap ledger: every case that is not bit for bit its reference, with its size. Schema ``conformance.gaps/1``::

    {"schema": "conformance.gaps/1",
     "cohort": {"device", "torch", "diffusers", "transformers", "capability", "threads"},
     "gaps": [{"case": id, "gate": "reference" | "self", "sizes": {metric: number},
               "accepted": {"reason", "owner", "date", "expires"}}]}

One file a cohort. A case that is exact has no entry. What an entry does to a verdict: ``conformance.ledger_rules``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from conformance.acceptance import Acceptance, parse
from conformance.errors import InputError, bad_field
from conformance.jsonio import dumps, number, read_json

SCHEMA = "conformance.gaps/1"
SHIPPED = Path(__file__).parent.parent / "thresholds" / "gaps"
NONE = "none"
GATES = ("reference", "self")
# What a gap is measured by: distances, 0 for equal. One of them at least moves whenever pixels, sound or latents do.
SIZES = ("latents.rel_l2", "mean_abs_diff", "tile_mean_abs_diff", "audio.log_spectral_distance", "audio.rms_db")
_PACKAGES = ("torch", "diffusers", "transformers")


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """What the gaps were measured on. device: ``cpu`` or the accelerator's name; torch, diffusers, transformers: public
    versions. capability: instruction set of the CPU; threads: of one rank. The last two move bits and are no cohort of
    their own: with others, sizes may differ by the noise floor.
    """

    device: str
    torch: str
    diffusers: str
    transformers: str
    capability: str
    threads: int

    @classmethod
    def of(cls, environment: Mapping[str, Any]) -> Cohort:
        """The cohort of a run. environment: ``environment.ledger``."""
        found = {name: environment["versions"][name].partition("+")[0] for name in _PACKAGES}
        return cls(
            device=environment["device"]["name"],
            capability=environment["cpu"]["capability"],
            threads=environment["threads"]["intra"],
            **found,
        )

    def unlike(self, other: Cohort) -> list[str]:
        """What keeps gaps of this cohort from speaking for the other one."""
        names = ("device", *_PACKAGES)
        return [
            f"{name} {getattr(self, name)!r} and not {getattr(other, name)!r}"
            for name in names
            if getattr(self, name) != getattr(other, name)
        ]

    def repeats(self, other: Cohort) -> bool:
        """Whether a run of the other cohort repeats one of this bit for bit. On accelerators nobody promises that."""
        return self == other and self.device == "cpu"


@dataclass(frozen=True, kw_only=True)
class Gap:
    """sizes: worst value of each of ``SIZES`` that was measured."""

    case: str
    gate: str
    sizes: Mapping[str, float]
    accepted: Acceptance

    def as_dict(self) -> dict[str, Any]:
        return {
            "case": self.case,
            "gate": self.gate,
            "sizes": dict(self.sizes),
            "accepted": self.accepted.as_dict(),
        }


@dataclass(frozen=True)
class Ledger:
    """Gaps by case and gate."""

    cohort: Cohort
    gaps: Mapping[tuple[str, str], Gap]

    def dump(self) -> str:
        """The text of its file: sorted, one field a line, so that a change reads well as a diff."""
        gaps = [self.gaps[key].as_dict() for key in sorted(self.gaps)]
        return dumps({"schema": SCHEMA, "cohort": asdict(self.cohort), "gaps": gaps}) + "\n"


def load(source: Path | None, device: str) -> Ledger | None:
    """The ledger of a device (``environment.cohort_device``), else another one's, that can say so; None without any.

    source: a file, a folder of files (``*.json``), or None for the shipped ones. InputError when one is missing or
    malformed, or when two are of this device.
    """
    source = SHIPPED if source is None else source
    if not source.exists():
        raise InputError(f"{source}: no such gap ledger, file or folder")
    paths = sorted(source.glob("*.json")) if source.is_dir() else [source]
    ledgers = {path: read(path) for path in paths}
    found = [path for path in paths if ledgers[path].cohort.device == device]
    if len(found) > 1:
        raise InputError(f"{source}: {found[0].name} and {found[1].name} are both of device {device!r}")
    return next((ledgers[path] for path in found + paths), None)


def read(path: Path) -> Ledger:
    """One file. InputError names the file, the entry, the field, its value and what was expected."""
    where, data = str(path), read_json(path, unique=True)
    top = _fields(data, ("schema", "cohort", "gaps"), where)
    if top["schema"] != SCHEMA:
        raise bad_field(where, "schema", top["schema"], repr(SCHEMA))
    names = tuple(Cohort.__dataclass_fields__)
    cohort = _fields(top["cohort"], names, f"{where}: cohort")
    for name in names:
        kind = int if name == "threads" else str
        if type(cohort[name]) is not kind or not cohort[name]:
            raise bad_field(f"{where}: cohort", name, cohort[name], "a positive number" if kind is int else "a text")
    if not isinstance(top["gaps"], list):
        raise bad_field(where, "gaps", top["gaps"], "a list")
    gaps: dict[tuple[str, str], Gap] = {}
    for index, item in enumerate(top["gaps"]):
        gap = _gap(item, f"{where}: gaps[{index}]")
        if (gap.case, gap.gate) in gaps:
            raise InputError(f"{where}: case {gap.case!r} has two entries for gate {gap.gate!r}; expected one")
        gaps[gap.case, gap.gate] = gap
    return Ledger(Cohort(**cohort), gaps)


def _gap(data: Any, where: str) -> Gap:
    item = _fields(data, ("case", "gate", "sizes", "accepted"), where)
    if not isinstance(item["case"], str) or not item["case"].strip():
        raise bad_field(where, "case", item["case"], "a case id")
    where = f"{where}, case {item['case']!r}"
    if item["gate"] not in GATES:
        raise bad_field(where, "gate", item["gate"], f"one of {GATES}")
    if not isinstance(item["sizes"], dict) or not item["sizes"].keys() & set(SIZES):
        raise bad_field(where, "sizes", item["sizes"], f"an object with some of {list(SIZES)}")
    return Gap(
        case=item["case"],
        gate=item["gate"],
        sizes={name: _size(name, value, where) for name, value in item["sizes"].items()},
        accepted=parse(item["accepted"], where),
    )


def _size(name: str, value: Any, where: str) -> float:
    """NaN is no size: whatever is measured would neither be larger nor smaller."""
    if name not in SIZES:
        raise bad_field(where, "sizes", name, f"one of {list(SIZES)}")
    try:
        size = number(value)
    except ValueError:
        size = -1.0
    if not size >= 0:
        raise bad_field(where, f"sizes.{name}", value, "a distance, at least 0")
    return size


def _fields(data: Any, names: tuple[str, ...], where: str) -> dict[str, Any]:
    if not isinstance(data, dict) or data.keys() != set(names):
        raise InputError(f"{where}: is {data!r:.120}; expected an object with fields {list(names)}")
    return data
