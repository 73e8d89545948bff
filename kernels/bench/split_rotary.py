"""Time of the split rotary kernel against its eager twin: ``python -m kernels.bench.split_rotary``.

Both are timed in one run, in turns, on the widths of the LTX-2 streams; what counts is the ratio.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import torch

from kernels import split_rotary_eager

# name -> (batch, tokens, heads, half a head): 6144 and 126 tokens are a 121-frame clip of 512 x 768 and its audio
SHAPES = {"video": (2, 6144, 32, 64), "audio": (2, 126, 32, 32)}
ROUNDS, CALLS = 20, 50


def milliseconds(call: Callable[[], torch.Tensor]) -> float:
    """Mean time of a call on the current CUDA device over ``CALLS`` calls."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(CALLS):
        call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / CALLS


def main() -> int:
    if not torch.cuda.is_available():
        print("kernels.bench.split_rotary: needs a CUDA device, and torch sees none", file=sys.stderr)
        return 2
    from kernels.split_rotary import rotate

    print(torch.cuda.get_device_name(), "torch", torch.__version__)
    for name, (batch, tokens, heads, half) in SHAPES.items():
        x = torch.randn(batch, tokens, heads * 2 * half, dtype=torch.bfloat16, device="cuda")
        angles = torch.rand(1, tokens, heads, half, dtype=torch.float32, device="cuda").transpose(1, 2)
        for rounding in split_rotary_eager.ROUNDINGS:
            operands = (x, angles.cos(), angles.sin(), rounding)
            fused, eager = (partial(f, *operands) for f in (rotate, split_rotary_eager.rotate))
            milliseconds(fused), milliseconds(eager)  # compile, warm up
            pairs = [(milliseconds(fused), milliseconds(eager)) for _ in range(ROUNDS)]
            ratios = sorted(slow / fast for fast, slow in pairs)
            fast, slow = (sorted(times)[ROUNDS // 2] for times in zip(*pairs, strict=True))
            spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
            middle = f"{ratios[ROUNDS // 2]:.2f} times as fast ({spread})"
            print(f"{name}, {rounding}: eager {slow:.4f} ms, fused {fast:.4f} ms, {middle}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
