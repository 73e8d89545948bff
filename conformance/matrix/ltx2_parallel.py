"""LTX-2 cases on several ranks, each judged against itself on one device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from conformance.case import Case, Layout
from conformance.matrix.ltx2_requests import DIFFUSERS, OFFICIAL

_BASES = (
    "one-stage-t2v/all-guidance",
    "one-stage-t2v/all-guidance-odd",
    "two-stage-t2v/all-guidance-adapted",
    "one-stage-t2v/unguided-tiles",
)
_ONE, _ODD, _TWO, _TILES = _BASES
# every layout on LTX-2.3 in both dtypes; the others show what a second model, token counts that no axis divides, and a
# second stage add
_ALL = ("tp2", "tp4", "cfg2", "cfg4", "ulysses2", "ulysses4", "ring2", "ulysses2-ring2", "cfg2-tp2", "ulysses2-tp2")
_CHOSEN = (
    ("ltx-2.3", _ONE, "fp32", _ALL),
    ("ltx-2.3", _ONE, "bf16", _ALL),
    ("ltx-2.3", _ONE, "fp32", ("tp2-text",)),
    ("ltx-2.3", _ONE, "bf16", ("tp2-text",)),
    ("ltx-2.3", _ODD, "fp32", ("tp2", "cfg2", "ulysses2", "ulysses4", "ring2", "ulysses2-ring2")),
    ("ltx-2.3", _ODD, "bf16", ("ulysses2", "ulysses2-ring2")),
    ("ltx-2.3", _TWO, "fp32", ("tp2", "cfg2", "ulysses2")),
    ("ltx-2.3", _TILES, "fp32", ("ulysses2", "tp2")),
    ("ltx-2.3", _TILES, "bf16", ("ulysses4",)),
    ("ltx-2", _ONE, "fp32", ("tp2", "cfg2", "ulysses2")),
    ("ltx-2", _ONE, "bf16", ("tp2", "cfg4", "ulysses2")),
)


def cases(plain: Sequence[Case]) -> Iterator[Case]:
    """Chosen cases of ``plain`` over layouts.

    The cfg axis has something to spread where branches are run one by one, as official packages do; there are as many
    forwards as branches. Other layouts depart from the preset that holds CFG branches in one batch.
    """
    for model, base, dtype, layouts in _CHOSEN:
        for name in layouts:
            layout = Layout.parse(name)
            numerics = OFFICIAL if layout.cfg > 1 else DIFFUSERS
            wanted = f"{model}/{base}@single+{numerics}-{dtype}"
            case = next(case for case in plain if case.id == wanted)
            yield replace(case, layout=layout, suites=("parallel",))
