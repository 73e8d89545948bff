"""Engines that differ from the shipped one in one place.

A variant is the engine with attributes of its modules replaced while it generates. ``defects.engine`` holds bugs that
a gate must catch, ``defects.nuisance`` legal changes that it must let pass.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from conformance.case import Case
from conformance.generator import Generator, Probe, Sample
from engine import generator, numerics

Replacement = tuple[Any, str, Any]  # object, attribute, value


@dataclass(frozen=True)
class _Patched:
    name: str
    plain: Generator
    replacements: tuple[Replacement, ...]

    def generate(self, case: Case, probe: Probe) -> Sample:
        with ExitStack() as stack:
            for target, attribute, value in self.replacements:
                stack.enter_context(patch.object(target, attribute, value))
            return self.plain.generate(case, probe)


@dataclass(frozen=True)
class Variant:
    """A factory for ``--engine``. Its engines must not generate beside others in one process at the same time."""

    name: str
    replacements: tuple[Replacement, ...]

    def __call__(self, checkpoint: Path, device: str) -> Generator:
        """``build(checkpoint, device)``, as ``engine.generator.build``."""
        return self.around(generator.build(checkpoint, device))

    def around(self, plain: Generator) -> Generator:
        """The variant of an engine that is built (and loaded) already."""
        return _Patched(self.name, plain, self.replacements)


def variant(name: str, *replacements: Replacement) -> Variant:
    return Variant(name, replacements)


def with_other(name: str, *fields: str) -> Variant:
    """The engine with fields of two values, in every preset of ``Numerics``, at the one that the preset has not."""

    def changed(preset: str) -> numerics.Numerics:
        made = numerics.PRESETS[preset]()
        others = {field: next(v for v in numerics.choices()[field] if v != getattr(made, field)) for field in fields}
        return replace(made, **others)  # type: ignore[arg-type]

    return variant(name, (numerics, "preset", changed))


def with_numerics(name: str, **changes: str) -> Variant:
    """The engine with fields of every preset of ``Numerics`` replaced."""

    def changed(preset: str) -> numerics.Numerics:
        return replace(numerics.PRESETS[preset](), **changes)  # type: ignore[arg-type]

    return variant(name, (numerics, "preset", changed))
