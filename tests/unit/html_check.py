"""A small reader of HTML pages for tests: structure, links, ids and text."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

_VOID = {"meta", "img", "input", "br", "hr", "link"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    parts: list[Element | str] = field(default_factory=list)

    @property
    def children(self) -> list[Element]:
        return [part for part in self.parts if isinstance(part, Element)]

    def all(self, tag: str = "", **attributes: str) -> list[Element]:
        """Descendants with this tag and these attributes; ``cls`` asks for one of the classes."""
        found = []
        for child in self.children:
            classes = child.attributes.get("class", "").split()
            right = all(
                value in classes if name == "cls" else child.attributes.get(name) == value
                for name, value in attributes.items()
            )
            found += [child] if right and tag in ("", child.tag) else []
            found += child.all(tag, **attributes)
        return found

    @property
    def text(self) -> str:
        """All text inside, cells and blocks apart."""
        return " ".join(self._raw().split())

    def _raw(self) -> str:
        inner = "".join(part if isinstance(part, str) else part._raw() for part in self.parts)
        return inner if self.tag in ("b", "small", "code", "a") else f" {inner} "


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("document", {})
        self.open = [self.root]
        self.problems: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        if len(attrs) != len(element.attributes):
            self.problems.append(f"<{tag}> has an attribute twice")
        self.open[-1].parts.append(element)
        if tag not in _VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open[-1].parts.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if self.open[-1].tag != tag:
            self.problems.append(f"</{tag}> closes <{self.open[-1].tag}> in line {self.getpos()[0]}")
            return
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].parts.append(data)


def parse(html: str) -> Element:
    """The document's tree. AssertionError where a tag is not closed, or closed out of order."""
    parser = _Parser()
    parser.feed(html)
    parser.close()
    assert not parser.problems, parser.problems[:5]
    assert len(parser.open) == 1, f"<{parser.open[-1].tag}> is not closed"
    return parser.root
