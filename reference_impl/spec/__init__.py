"""The operations of LTX-2 and LTX-2.3 written from the mathematics, in the slowest and most explicit form.

Values are float64 tensors that hold numbers of a smaller dtype exactly; every rounding is a call of
:func:`reference_impl.spec.rounding.round_to`. Nothing here imports the engine.
"""
