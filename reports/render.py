"""A report on disk: ``index.html``, ``results.json``, ``junit.xml`` and ``summary.md`` in one folder."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from conformance.jsonio import write_atomic, write_json
from conformance.results import Results
from reports.junit import junit_xml
from reports.markdown import summary_md
from reports.thumbs import PAGE_BYTES
from reports.view import page

_HERE = Path(__file__).parent
MOST_BYTES = 20_000_000
_SCRIPTS = ("list.js", "viewer.js", "sound.js", "accept.js", "keys.js")


def _source_hash(text: str) -> str:
    """A content security policy's name for inline text."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


def _script() -> str:
    """The page's script: each file in a scope of its own."""
    texts = [(_HERE / "static" / name).read_text(encoding="utf-8") for name in _SCRIPTS]
    return '"use strict";\n' + "\n".join(f"{{\n{text}}}" for text in texts)


def render_html(results: Results, root: Path, most: int = MOST_BYTES) -> str:
    """The page of ``results``. Frames and files are looked up under ``root``; nothing is loaded from a network.

    most: bytes of the page. Where its words leave less room than pictures take otherwise, they get what there is.

    The content security policy admits the page's own script and style by their hashes, embedded pictures, pictures and
    sound beside the page, and nothing else, so that text from a results file could not run even if it escaped.
    """
    env = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = (_HERE / "static" / "report.css").read_text(encoding="utf-8")
    script = _script()
    policy = (
        f"default-src 'none'; script-src {_source_hash(script)}; style-src {_source_hash(style)}; "
        "img-src data: 'self' file:; media-src 'self' file:; base-uri 'none'; form-action 'none'"
    )
    template = env.get_template("base.html.j2")

    pictures = PAGE_BYTES
    while True:
        made = page(results, root, pictures)
        html = template.render(page=made, style=Markup(style), script=Markup(script), policy=policy)
        excess = len(html.encode()) - most
        if excess <= 0 or not made.pictures:
            return html
        pictures = max(0, made.pictures - excess - most // 100)  # words in their place take room too


def write_report(results: Results, folder: Path) -> Path:
    """Write the four files of a report into ``folder``, each atomically; returns the path of ``index.html``.

    Linked frames and files are expected under ``folder`` already; what is missing there is named in the report.
    """
    html = render_html(results, folder)
    write_json(folder / "results.json", results.as_dict())
    write_atomic(folder / "junit.xml", junit_xml(results))
    write_atomic(folder / "summary.md", summary_md(results))
    write_atomic(folder / "index.html", html)
    return folder / "index.html"
