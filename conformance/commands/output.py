"""What the commands share about printing."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from conformance.errors import InputError
from conformance.jsonio import dumps, write_json

Show = Callable[[str], None]


def write_json_option(target: str | None, value: Any) -> bool:
    """Honour ``--json``: a path, or ``-`` for standard output. True when standard output is taken."""
    if target == "-":
        print(dumps(value))
        return True
    if target is not None:
        write_json(Path(target), value)
    return False


def check_writable(flag: str, path: Path | str | None) -> None:
    """InputError when the file that ``flag`` names cannot be made: asked before the work, not after."""
    if path is None:
        return
    try:
        if Path(path).is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=Path(path).parent):
            pass
    except OSError as error:
        raise InputError(f"{flag} {path}: cannot be written ({error.strerror})") from None


def preparing(place: str) -> None:
    """Where the preparation of a run is, one line on standard error."""
    print(f"  {place}", file=sys.stderr, flush=True)


@contextmanager
def progress(total: int, title: str) -> Iterator[tuple[Show, Callable[[str, str], None]]]:
    """Yield ``(done, place)``: ``done(line)`` when a case is finished, ``place(case, where)`` while it runs.

    A bar on a terminal, one line a finished case elsewhere; always on standard error.
    """
    if not sys.stderr.isatty():
        count = iter(range(1, total + 1))

        def plain(line: str) -> None:
            print(f"[{next(count)}/{total}] {line}", file=sys.stderr, flush=True)

        yield plain, lambda case, where: None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("[dim]{task.fields[where]}"), console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total, where="")

        def done(line: str) -> None:
            bar.console.print(escape(line), highlight=False)
            bar.advance(task)

        yield done, lambda case, where: bar.update(task, where=escape(f"{case}: {where}"))
