"""The ranks of a case: how many along each axis of parallelism."""

from __future__ import annotations

import re
from dataclasses import dataclass

from conformance.checked import Checked
from conformance.errors import bad_field

AXES = ("cfg", "ulysses", "ring", "tp")  # as a layout's name has them


@dataclass(frozen=True, kw_only=True)
class Layout(Checked):
    """Ranks along each parallel axis. One device is ``Layout.single()``, named ``single``.

    text: the ``tp`` axis cuts the text encoder too, which is whole on every rank otherwise.
    """

    tp: int
    cfg: int
    ulysses: int
    ring: int
    text: bool

    @classmethod
    def single(cls) -> Layout:
        return cls(tp=1, cfg=1, ulysses=1, ring=1, text=False)

    @classmethod
    def parse(cls, name: str) -> Layout:
        """The inverse of ``name``: ``single``, ``tp2``, ``cfg2-tp2``, ``ulysses2-ring2``, ``tp2-text``."""
        sizes = dict.fromkeys(AXES, 1)
        parts = [] if name == "single" else name.split("-")
        text = len(parts) > 1 and parts[-1] == "text"
        for part in parts[:-1] if text else parts:
            match = re.fullmatch(r"(tp|cfg|ulysses|ring)([1-9][0-9]*)", part)
            if not match:
                raise bad_field("layout", "name", name, "'single' or axes such as 'tp2', 'cfg2-tp2'")
            sizes[match[1]] = int(match[2])
        return cls(**sizes, text=text)

    @property
    def name(self) -> str:
        parts = [f"{axis}{getattr(self, axis)}" for axis in AXES if getattr(self, axis) > 1]
        return "-".join(parts + ["text"] * self.text) or "single"

    @property
    def world(self) -> int:
        """Ranks in all."""
        return self.tp * self.cfg * self.ulysses * self.ring

    def _validate(self, where: str) -> None:
        for axis in AXES:
            if getattr(self, axis) < 1:
                raise bad_field(where, axis, getattr(self, axis), "at least 1")
        if self.text and self.tp == 1:
            raise bad_field(where, "text", self.text, "false, where tp is 1")
