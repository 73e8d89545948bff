"""Values as a reader sees them: numbers, durations, links and text nobody vouches for.

Every string of a report passes through :func:`visible`. Escaping for HTML, XML and Markdown is done where
those are written; this only makes sure that what is shown is what is there.
"""

from __future__ import annotations

import json
import math
import unicodedata
from pathlib import Path
from typing import Any
from urllib.parse import quote

from conformance.errors import InputError
from conformance.results import safe_path

LONGEST = 600  # characters of one value in a table; results.json has the rest


def visible(text: object) -> str:
    """``text`` with control, format and surrogate characters (bidi overrides, escapes, NUL) written as ``\\u202e``."""
    return "".join(
        char if char == "\n" or unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co") else _escape(char)
        for char in str(text)
    )


def _escape(char: str) -> str:
    code = ord(char)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def one_line(text: object, longest: int = LONGEST) -> str:
    """``visible`` text on one line, cut with a count of what was left out."""
    line = " ".join(visible(text).split())
    return line if len(line) <= longest else f"{line[:longest]}… ({len(line) - longest} more characters)"


def number(value: float | None, *, none: str = "–") -> str:
    """Five significant digits; a value that is almost but not quite 1 never reads as 1."""
    if value is None:
        return none
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    text = f"{value:.5g}"
    if value != 1 and float(text) == 1:
        return f"1 {'−' if value < 1 else '+'} {abs(1 - value):.2g}"
    if "e" in text:
        return f"{value:.2e}"
    return text.replace("-", "−")


def duration(seconds: float | None) -> str:
    """``0.42 s``, ``12.3 s``, ``3 min 05 s``, ``2 h 07 min``."""
    if seconds is None:
        return "–"
    if not math.isfinite(seconds):
        return f"{number(seconds)} s"
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def plain(value: Any) -> str:
    """A JSON value on one line; texts without quotes."""
    if isinstance(value, str):
        return one_line(value)
    if isinstance(value, float):
        return one_line(repr(value))
    return one_line(json.dumps(value, ensure_ascii=False, default=str))


def leaves(value: Any, prefix: str = "") -> dict[str, Any]:
    """Leaves of nested objects as ``{"a.b": value}``, in order. Lists are leaves."""
    if isinstance(value, dict) and value:
        rows: dict[str, Any] = {}
        for key, item in value.items():
            rows |= leaves(item, f"{prefix}.{visible(key)}" if prefix else visible(key))
        return rows
    return {prefix or "value": value}


def flatten(value: Any) -> dict[str, str]:
    """``leaves`` with the values as text; an empty object has none."""
    return {name: plain(leaf) for name, leaf in leaves(value).items()} if value else {}


def inside(root: Path, path: str) -> Path | None:
    """The file ``path`` under ``root``, or None when it leaves the root (links followed) or is no file."""
    try:
        file = (root / safe_path("report", path)).resolve()
        return file if file.is_relative_to(root.resolve()) and file.is_file() else None
    except (InputError, OSError, ValueError):
        return None


def href(path: str) -> str:
    """A relative link to a file beside the report; never a scheme, query or fragment."""
    return "./" + quote(path, safe="/", errors="replace")
