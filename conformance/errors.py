"""Errors a user can meet. Each is one line that names what, where and what was expected."""

from __future__ import annotations


class ConformanceError(Exception):
    """Base of every error that is shown to a user as one line, without a traceback."""


class InputError(ConformanceError):
    """Something the user gave (argument, file, case, image, thresholds) cannot be used: exit code 2."""


class UnsupportedCase(ConformanceError):
    """This generator cannot produce the case (layout, pipeline, dtype): verdict UNSUPPORTED."""


class ReferenceMissing(ConformanceError):
    """No reference exists for the case: verdict NO_REFERENCE."""


class ReferenceStale(ConformanceError):
    """A stored reference was made from something else than this run uses: verdict STALE_REFERENCE."""


class GeneratorFailed(ConformanceError):
    """A generator raised while it produced a case: verdict INFRA_ERROR."""


class RankFailed(ConformanceError):
    """A rank of a parallel layout raised, died or hung, and took the others with it: verdict INFRA_ERROR."""


class RanksDisagree(ConformanceError):
    """Ranks returned different bits of what every rank has whole: verdict FAIL."""


def bad_field(where: str, field: str, value: object, expected: str) -> InputError:
    """The project's one wording for a bad value: ``where: field 'f' is v; expected e``."""
    return InputError(f"{where}: {field!r} is {value!r}; expected {expected}")
