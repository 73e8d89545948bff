"""How far a case on a layout may be from the same case on one device, and why."""

from __future__ import annotations

from dataclasses import dataclass

from conformance.case import Layout


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Relative L2, inclusive, of the worst stream; the limits of ``parallel.*`` in results.

    text: states of the text encoder and the contexts made of them: bits, but where the layout cuts the text encoder.
    first_forward: velocities of the first evaluation of the DiT, whose other inputs are equal bit for bit. final:
    latents after the last step, in which guidance and the steps have enlarged what the forwards differ by. decoded:
    frames and waveform as the decoders put them out. reason: one sentence.
    """

    text: float
    first_forward: float
    final: float
    decoded: float
    reason: str


_MOVES = "cfg and ulysses axes move branches, heads and tokens between ranks and change no sum"
_SUMS = {
    "tp": "tp sums the products of to_out and of the feed-forward over ranks, in another order than one matrix product",
    "ring": "ring adds up the softmax of each query key block by key block, in another order than one kernel",
}
_ON_A_GPU = {"ulysses": "under ulysses a product has fewer rows, for which a GPU takes another kernel"}
# Two to three times the worst that was measured of layouts with tp or ring over cases of the suite on a CPU:
# fp32 3.3e-7, 1.3e-6, 5.9e-6; bf16 7.3e-3, 4.7e-2, 1.2e-1. On H200s, ulysses too: fp32 4.1e-7, 1.1e-6, 7.7e-6.
_BY_DTYPE = {
    "fp32": {"first_forward": 1e-6, "final": 4e-6, "decoded": 2e-5},
    "bf16": {"first_forward": 1.5e-2, "final": 1e-1, "decoded": 2.5e-1},
}
# As above, of tp2-text: fp32 5.4e-7, bf16 6.6e-3.
_TEXT = {"fp32": 1.5e-6, "bf16": 1.5e-2}


def bounds(layout: Layout, dtype: str, device: str) -> Bounds:
    """The bounds of a layout; 0.0 means bits.

    A layout that only moves data between ranks may change nothing. One that adds in another order may differ by the
    rounding of those sums: relative 2**-24 a sum in fp32. In bf16 the sums are made in fp32 too and are rounded once,
    but one that falls on the other side of a rounding boundary moves an element by 2**-8 of itself.
    device: ``cpu``, or another kind, where the number of rows of a matrix product decides how its sums are ordered.
    """
    sums = _SUMS if device == "cpu" else _SUMS | _ON_A_GPU
    reasons = [reason for axis, reason in sums.items() if getattr(layout, axis) > 1]
    if not reasons:
        return Bounds(text=0.0, first_forward=0.0, final=0.0, decoded=0.0, reason=_MOVES)
    text = _TEXT[dtype] if layout.text else 0.0
    return Bounds(text=text, **_BY_DTYPE[dtype], reason="; ".join(reasons))
