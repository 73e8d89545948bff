"""A job: one case and its gates, with everything that can change their results; and what their references are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from conformance.case import Case, slug
from conformance.errors import InputError
from conformance.jsonio import digest

ENGINE = "engine.generator:build"
LIVE = "live"
SINGLE = "single"  # the same generator and case on one device
REFERENCES = {
    "diffusers": "reference_impl.diffusers_ltx2:build",
    "official": "reference_impl.official.generator:build",
}
STORED = ("stored", "self")  # kinds of reference that come from the store


@dataclass(frozen=True, kw_only=True)
class Job:
    """One case, its gates, and everything that can change their results. The engine runs once for all of them.

    out: root of the run's folder. engine: ``module:factory``. reference: ``live`` (the one the case's numerics name),
    one of ``REFERENCES`` or the ``module:factory`` of another live one, or ``stored`` (the output of the first, in the
    store), ``self`` (the engine's accepted output in the store) or ``single`` (the engine on one device). further: more
    of them, for other gates. checkpoint: folder. device: ``cpu`` or ``cuda``. threads: CPU threads of one rank.
    timeout: seconds. thresholds, store: path, or None for the shipped ones. clip: a CLIP model to measure with, or
    None. depth: how deep taps reach (``Probe``). ledger: path of the gap ledger, None for the shipped one, ``none``
    where it says nothing about this run. oracle: ask who is closer to the truth where the sides differ. versions, code
    and the digests: what the job ran with, so that a resumed run reuses no other version's result.
    """

    case: Case
    out: str
    engine: str
    reference: str
    further: tuple[str, ...]
    checkpoint: str
    checkpoint_digest: str
    device: str
    threads: int
    timeout: float
    thresholds: str | None
    thresholds_digest: str
    store: str | None
    store_digest: str
    ledger: str | None
    ledger_digest: str
    oracle: bool
    clip: str | None
    depth: str
    versions: tuple[tuple[str, str], ...]
    code: str

    @property
    def gates(self) -> tuple[Job, ...]:
        """The same job once a gate, each with its one reference."""
        return tuple(replace(self, reference=each, further=()) for each in (self.reference, *self.further))

    @property
    def gate(self) -> str:
        """Of the first reference."""
        return gate_of(self.reference)

    @property
    def folder(self) -> str:
        """The folder of case and gate, relative to ``out``."""
        return f"cases/{slug(self.case.id)}" + ("" if self.gate == "reference" else f".{self.gate}")

    @property
    def digest(self) -> str:
        """Identity for resuming: where the output lies and how long it may take do not change it."""
        data = asdict(replace(self, out="", timeout=0.0))
        return digest(data)


def gate_of(reference: str) -> str:
    return {"self": "self", SINGLE: "parallel"}.get(reference, "reference")


def against(case: Case, reference: str) -> str:
    """What ``--reference`` means for a case: ``live`` for one on several ranks is the same engine on one device."""
    return SINGLE if reference == LIVE and case.layout.world > 1 else reference


def references_of(case: Case, asked: Sequence[str]) -> tuple[str, ...]:
    """What several ``--reference`` mean for a case. InputError for two of one gate.

    A case of one device has no parallel gate: ``single`` beside others asks nothing of it.
    """
    found = tuple(dict.fromkeys(against(case, reference) for reference in asked))
    if case.layout.world == 1 and len(found) > 1:
        found = tuple(reference for reference in found if reference != SINGLE)
    by_gate: dict[str, str] = {}
    for reference in found:
        other = by_gate.setdefault(gate_of(reference), reference)
        if other != reference:
            raise InputError(f"--reference {reference}: gate {gate_of(reference)!r} is against {other!r} already")
    return found


def reference_of(case: Case) -> str:
    """Which of ``REFERENCES`` a case claims to match: its numerics preset says so."""
    return "official" if case.numerics.startswith("official-") else "diffusers"


def stored_as(job: Job) -> Case:
    """The case whose sample the store holds for this job: overrides are the engine's alone."""
    return job.case if job.reference == "self" else replace(job.case, overrides=())
