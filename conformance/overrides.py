"""How a run departs from the cases it picks: rounding decisions, quantization, kernels, a given picture.

A departure is applied to the case itself: its id, its digest, its result and the command that runs it again carry it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from conformance.case import KERNELS, QUANTIZATIONS, Case, Override
from conformance.errors import InputError, bad_field
from conformance.jsonio import read_json
from conformance.matrix import all_cases
from conformance.pictures import Picture, take
from engine.numerics import choices, preset, resolve

_WHOLE = {"quantization": QUANTIZATIONS, "kernels": KERNELS}  # fields of Case that may be replaced, and their values


@dataclass(frozen=True, kw_only=True)
class Changes:
    """numerics: fields of ``Numerics`` and their values. quantization, kernels: of ``Case``; None leaves the case's."""

    numerics: tuple[Override, ...] = ()
    quantization: str | None = None
    kernels: str | None = None

    @classmethod
    def from_dict(cls, data: Any, where: str) -> Changes:
        """The inverse of ``as_dict``. InputError, beginning with ``where``, names an unknown key or a bad value."""
        if not isinstance(data, dict):
            raise InputError(f"{where}: expected an object, got {type(data).__name__}")
        for key in data:
            if key not in ("numerics", *_WHOLE):
                raise _unknown(where, "key", key, ("numerics", *_WHOLE))
        numerics = data.get("numerics", {})
        if not isinstance(numerics, dict):
            raise bad_field(where, "numerics", numerics, "an object of fields and values")
        whole = {key: value for key, value in data.items() if key != "numerics"}
        for key, value in whole.items():
            if value not in _WHOLE[key]:
                raise bad_field(where, key, value, f"one of {_WHOLE[key]}")
        return cls(numerics=_overrides(numerics, where), **whole)

    @classmethod
    def parse(cls, settings: Sequence[str], where: str) -> Changes:
        """``FIELD=VALUE`` texts, each field once. InputError as ``from_dict``."""
        numerics: dict[str, str] = {}
        for text in settings:
            field, equals, value = text.partition("=")
            if not equals:
                raise InputError(f"{where} {text!r}: expected FIELD=VALUE, such as attention=math")
            if field in numerics:
                raise InputError(f"{where} {text!r}: {field!r} was set to {numerics[field]!r} before; expected it once")
            numerics[field] = value
        return cls(numerics=_overrides(numerics, where))

    def as_dict(self) -> dict[str, Any]:
        """JSON values, what is left as it is being absent."""
        whole = {key: getattr(self, key) for key in _WHOLE if getattr(self, key) is not None}
        numerics = {override.field: override.value for override in self.numerics}
        return ({"numerics": numerics} if numerics else {}) | whole

    def over(self, below: Changes) -> Changes:
        """Both, this one's word counting where they meet."""
        numerics = below.as_dict().get("numerics", {}) | self.as_dict().get("numerics", {})
        return Changes.from_dict(below.as_dict() | self.as_dict() | {"numerics": numerics}, "changes")

    def apply(self, case: Case) -> Case:
        """The case with these changes.

        A field that is set to what the case's preset does is no departure: the case keeps its id, and its limits.
        """
        usual = preset(case.numerics)
        chosen = {override.field: override.value for override in (*case.overrides, *self.numerics)}
        kept = {field: chosen[field] for field in choices() if chosen.get(field) not in (None, getattr(usual, field))}
        whole = {key: value for key, value in self.as_dict().items() if key in _WHOLE}
        return replace(case, overrides=_overrides(kept, case.id), **whole)


def _unknown(where: str, kind: str, name: Any, known: Iterable[str]) -> InputError:
    known = list(known)
    near = difflib.get_close_matches(str(name), known, n=1)
    return InputError(
        f"{where}: unknown {kind} {name!r}; " + (f"nearest is {near[0]!r}" if near else f"known: {known}")
    )


def _overrides(numerics: Mapping[str, Any], where: str) -> tuple[Override, ...]:
    """Checked, in the order of the fields of ``Numerics``."""
    known = choices()
    for field, value in numerics.items():
        if field not in known:
            raise _unknown(where, "field of the numerics", field, known)
        if not isinstance(value, str) or value not in known[field]:
            raise bad_field(where, field, value, f"one of {known[field]}")
    return tuple(Override(field=field, value=numerics[field]) for field in known if field in numerics)


def depart(
    cases: Sequence[Case],
    *,
    settings: Sequence[str],
    config: Path | None,
    quantization: str | None,
    kernels: str | None,
    image: str | None,
    option: str = "--",
) -> list[Case]:
    """The picked cases as a command line changes them; it counts over the file, and the file over the case.

    settings: ``FIELD=VALUE`` texts. config: JSON file of ``Changes.as_dict``. image: path of a picture, or ``sha256:``
    and the digits of one given before. option: what the names of the options begin with, for errors. Where the changes
    make two cases one, it is returned once. InputError when anything cannot be applied, before any picture is stored.
    """
    line = Changes.parse(settings, f"{option}set")
    for key, value in (("quantization", quantization), ("kernels", kernels)):
        if value is not None:
            line = replace(line, **Changes.from_dict({key: value}, f"{option}{key}").as_dict())
    file = Changes() if config is None else Changes.from_dict(read_json(config, unique=True), str(config))
    made = [line.over(file).apply(case) for case in cases]
    if image is not None:
        for case in made:
            if case.request.image is None:
                raise InputError(f"{option}image: {case.id} takes no picture; pick image-conditioned cases ('*-ti2v*')")
        picture = take(image, f"{option}image")
        made = [with_picture(case, picture) for case in made]
    return list({case.id: case for case in made}.values())


def with_picture(case: Case, picture: Picture) -> Case:
    """The case, conditioned on this picture at its own size; crf and strength stay. The case must take a picture."""
    assert case.request.image is not None
    given = replace(case.request.image, picture=picture.name, height=picture.height, width=picture.width)
    return replace(case, request=replace(case.request, image=given))


@cache
def _matrix() -> tuple[Case, ...]:
    return all_cases()


def origin(case: Case) -> tuple[str, list[str]]:
    """The id of the case of the matrix that ``case`` was made from, and the options of a run that make it so again.

    A case of no matrix is its own origin.
    """
    alike = ("model", "pipeline", "variant", "layout", "numerics", "dtype")
    bases = [base for base in _matrix() if all(getattr(base, name) == getattr(case, name) for name in alike)]
    found = [(base, options) for base in bases if (options := _options(base, case)) is not None]
    if not found:
        return case.id, []
    base, options = min(found, key=lambda item: len(item[1]))
    return base.id, options


def _options(base: Case, case: Case) -> list[str] | None:
    """What turns ``base`` into ``case`` on a command line; None when nothing does."""
    mine, theirs = asdict(resolve(case)), asdict(resolve(base))
    options = [word for field in mine if mine[field] != theirs[field] for word in ("--set", f"{field}={mine[field]}")]
    for key in _WHOLE:
        if getattr(case, key) != getattr(base, key):
            options += [f"--{key}", getattr(case, key)]
    image = case.request.image
    if image is not None and image.picture.startswith("sha256:") and image != base.request.image:
        options += ["--image", image.picture]
        base = with_picture(base, Picture(name=image.picture, height=image.height, width=image.width))
    return options if base.request == case.request else None
