"""Step time and communication of layouts, as ratios to one device in the same run: ``python -m engine.parallel.bench``.

A step is two forwards (with and without the prompt) of an LTX-2.3 DiT of random weights; ranks have one CPU thread, or
a GPU each. What a rank hands to collectives is counted, whatever the library then sends. Layouts take turns, round by
round, and the median of the ratios of a round counts. The feed-forward layer is measured on its own, as it is cut here
(hidden features stay on their rank, one sum) and with the hidden features gathered before a whole second layer.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist

from conformance import ranks
from conformance.case import Layout
from engine.layers.feedforward import FeedForward, GeluProjection
from engine.models.ltx2 import positions
from engine.models.ltx2.config import TransformerConfig
from engine.models.ltx2.transformer import LTX2Transformer, ModelInputs
from engine.numerics import Numerics
from engine.parallel import cfg, mesh, tensor
from engine.parallel.ltx2 import parallelize_ltx2
from engine.sampling.branches import Estimates, Forward, run_all
from reference_impl.tiny.build import cached

LAYOUTS = ("single", "tp2", "cfg2", "ulysses2", "ring2", "tp4", "cfg2-tp2", "ulysses2-ring2")
ROUNDS, STEPS = 5, 3
_NUMERICS = replace(Numerics.diffusers(), cfg_batch="sequential")
_FORWARDS: tuple[Forward, ...] = (("cond",), ("uncond",))
_SHAPE_FHW, _AUDIO_TOKENS, _TEXT_TOKENS = (4, 12, 16), 64, 64


@dataclass(frozen=True)
class Cost:
    """seconds of a step, and bytes that a rank hands to collectives in it (mean over ranks)."""

    seconds: float
    bytes: float


def config() -> TransformerConfig:
    """Eight heads of 64 for video and of 32 for sound, four blocks."""
    tiny = TransformerConfig.load(cached("ltx-2.3") / "transformer")
    return replace(
        tiny,
        num_attention_heads=8,
        attention_head_dim=64,
        cross_attention_dim=512,
        audio_num_attention_heads=8,
        audio_attention_head_dim=32,
        audio_cross_attention_dim=256,
        num_layers=4,
    )


def model(dtype: torch.dtype, device: torch.device) -> LTX2Transformer:
    torch.manual_seed(0)
    return LTX2Transformer(config()).to(device, dtype).eval()


def inputs(dtype: torch.dtype, device: torch.device) -> ModelInputs:
    sizes, generator = config(), torch.Generator().manual_seed(1)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(device, dtype)

    frames, rows, columns = _SHAPE_FHW
    level = torch.full((1,), 700.0, device=device)
    text = (sizes.caption_channels,) * 2 if sizes.use_prompt_embeddings else (sizes.width, sizes.audio_width)
    return ModelInputs(
        video=draw(1, frames * rows * columns, sizes.in_channels),
        audio=draw(1, _AUDIO_TOKENS, sizes.audio_in_channels),
        video_text=draw(1, _TEXT_TOKENS, text[0]),
        audio_text=draw(1, _TEXT_TOKENS, text[1]),
        text_mask=torch.ones(1, _TEXT_TOKENS, dtype=torch.int64, device=device),
        timestep=level,
        audio_timestep=level,
        sigma=level,
        video_bounds=positions.video_bounds(_SHAPE_FHW, 24.0, 1, sizes, device),
        audio_bounds=positions.audio_bounds(_AUDIO_TOKENS, 1, sizes, device),
    )


@contextmanager
def counted() -> Iterator[list[int]]:
    """Bytes that this rank hands to the collectives that the engine calls."""
    sent = [0]

    def noted(name: str, size: Callable[..., int]) -> Any:
        call = getattr(dist, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            sent[0] += size(*args, **kwargs)
            return call(*args, **kwargs)

        return patch.object(dist, name, wrapped)

    def nbytes(x: torch.Tensor) -> int:
        return x.numel() * x.element_size()

    def broadcast(x: torch.Tensor, src: int, **_: Any) -> int:
        return nbytes(x) if src == dist.get_rank() else 0

    def swapped(operations: Sequence[dist.P2POp]) -> int:
        return sum(nbytes(each.tensor) for each in operations if each.op is dist.isend)

    with (
        noted("all_reduce", lambda x, **_: nbytes(x)),
        noted("all_gather", lambda parts, x, **_: nbytes(x)),
        noted("all_to_all_single", lambda out, x, **_: nbytes(x)),
        noted("broadcast", broadcast),
        noted("batch_isend_irecv", swapped),
    ):
        yield sent


def _timed(call: Callable[[], Any], device: torch.device, count: int) -> Cost:
    call()  # warm
    dist.barrier()
    with counted() as sent:
        started = time.perf_counter()
        for _ in range(count):
            call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return Cost((time.perf_counter() - started) / count, sent[0] / count)


def _device(kind: str, rank: ranks.Rank) -> torch.device:
    return torch.device("cpu" if kind == "cpu" else f"cuda:{rank.device}")


@torch.inference_mode()
def step_cost(rank: ranks.Rank, layout: str, dtype: torch.dtype, kind: str) -> Cost:
    """One layout, on one of its ranks."""
    device = _device(kind, rank)
    made, given = model(dtype, device), inputs(dtype, device)
    at = mesh.make(Layout.parse(layout), device)
    spread = run_all
    if at.layout.world > 1:
        parallelize_ltx2(made, at, _NUMERICS)
        spread = cfg.spread_over(at) if at.layout.cfg > 1 else run_all

    def run(forward: Forward) -> Estimates:
        video, audio = made(given, _NUMERICS)
        return {forward[0]: {"video": video, "audio": audio}}

    def blank(stream: str) -> torch.Tensor:
        return torch.zeros_like(given.video if stream == "video" else given.audio)

    return _timed(lambda: spread(_FORWARDS, run, blank), device, STEPS)


@torch.inference_mode()
def feed_forward_cost(rank: ranks.Rank, gather: bool, world: int, dtype: torch.dtype, kind: str) -> Cost:
    """The video feed-forward of one block over tensor-parallel ranks, on one of them."""
    device = _device(kind, rank)
    layer = model(dtype, device).transformer_blocks[0].ff
    assert isinstance(layer, FeedForward)
    at = mesh.make(Layout.parse("single" if world == 1 else f"tp{world}"), device)
    if gather and world > 1:
        gelu = layer.net[0]
        assert isinstance(gelu, GeluProjection)
        tensor.cut_outputs(gelu.proj, at)
        gelu.register_forward_hook(lambda module, args, output: tensor.gathered(output, at))
    elif world > 1:
        tensor.shard_feed_forward(layer, at, _NUMERICS)
    frames, rows, columns = _SHAPE_FHW
    x = torch.randn(1, frames * rows * columns, config().width).to(device, dtype)
    return _timed(lambda: layer(x), device, 20)


def mean(costs: Sequence[Cost]) -> Cost:
    """Of the ranks of one measurement: the slowest one's time."""
    return Cost(max(each.seconds for each in costs), statistics.fmean(each.bytes for each in costs))


def against(name: str, rounds: Sequence[dict[str, Cost]], base: str) -> str:
    """A line: time as the median of the ratios of each round, their range, and bytes."""
    ratios = sorted(each[name].seconds / each[base].seconds for each in rounds)
    seconds = statistics.median(each[name].seconds for each in rounds)
    volume = rounds[0][name].bytes / 2**20
    spread = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
    return f"{name:<24} {1000 * seconds:9.1f} ms  {spread:<24} {volume:8.2f} MiB"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("layouts", nargs="*", help=f"(default: {' '.join(LAYOUTS[1:])})")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[options.dtype]
    launch = partial(ranks.run, backend="gloo" if options.device == "cpu" else "nccl", timeout=300.0)
    layouts = ["single", *(name for name in options.layouts or LAYOUTS if name != "single")]
    steps, layers = [], []
    for _ in range(options.rounds):
        steps.append({n: mean(launch(Layout.parse(n).world, step_cost, n, dtype, options.device)) for n in layouts})
        made = {"one device": mean(launch(1, feed_forward_cost, False, 1, dtype, options.device))}
        for name, gather in (("tp2, hidden kept", False), ("tp2, hidden gathered", True)):
            made[name] = mean(launch(2, feed_forward_cost, gather, 2, dtype, options.device))
        layers.append(made)
    print(f"a step, {options.dtype}, {options.device}: median time, ratio to one device (range), handed to collectives")
    print("\n".join(against(name, steps, "single") for name in layouts))
    print("a feed-forward layer")
    print("\n".join(against(name, layers, "one device") for name in layers[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
