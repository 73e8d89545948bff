"""What tests of sequence parallelism share: one DiT forward on ranks beside the same forward on one device."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from engine_reference import CPU, DIFFUSERS, dit_inputs, engine_dit
from ranks import run_ranks

from conformance.case import Layout
from conformance.defects.variants import Variant
from engine.backends import attend
from engine.models.ltx2.transformer import ModelInputs
from engine.parallel import mesh, sequence
from engine.parallel.ltx2 import parallelize_ltx2

DTYPES = (torch.float32, torch.bfloat16)
Velocities = tuple[torch.Tensor, torch.Tensor]


def scenes(model: str, dtype: torch.dtype) -> dict[str, ModelInputs]:
    """192 video tokens and 16 of audio divide; 45 and 17 do not; of 3 and 2 some ranks have none."""
    odd = dit_inputs(model, dtype, audio_tokens=17)
    pair = dit_inputs(model, dtype, audio_tokens=17, batch=2)
    given = pair.timestep[:, None].expand(-1, 45).clone()
    given[:, :15] = 0
    per_token = {"timestep": given, "audio_timestep": pair.timestep[:, None].expand(-1, 17)}
    return {
        "divisible": dit_inputs(model, dtype, shape_FHW=(3, 8, 8), audio_tokens=16, text_tokens=32),
        "odd": odd,
        "channels slowest": replace(odd, video=odd.video.transpose(1, 2).contiguous().transpose(1, 2)),
        "two branches": pair,
        "given frame": replace(pair, timestep=given),
        "time by token": replace(pair, **per_token),
        "STG": replace(odd, stg_blocks=(1,)),
        "isolated": replace(odd, isolated=True),
        "no V2A": replace(odd, skip_v2a=True),
        "few": dit_inputs(model, dtype, shape_FHW=(1, 1, 3), audio_tokens=2),
    }


@torch.inference_mode()
def whole(model: str, dtype: torch.dtype, inputs: Mapping[str, ModelInputs]) -> dict[str, Velocities]:
    """On one device."""
    return {name: engine_dit(model, dtype)(each, DIFFUSERS) for name, each in inputs.items()}


def forwards(
    model: str, dtype: torch.dtype, layout: str, inputs: Mapping[str, ModelInputs], variant: Variant | None = None
) -> dict[str, Velocities]:
    """The same bits on every rank."""

    def run(at: mesh.Mesh) -> dict[str, Velocities]:
        copied = copy.deepcopy(engine_dit(model, dtype))
        parallelize_ltx2(copied, at, DIFFUSERS)
        return {name: copied(each, DIFFUSERS) for name, each in inputs.items()}

    results = on_mesh(layout, run, variant)
    for result in results:
        assert all(torch.equal(a, b) for name in inputs for a, b in zip(result[name], results[0][name], strict=True))
    return results[0]


def on_mesh(layout: str, operation: Callable[[mesh.Mesh], Any], variant: Variant | None = None) -> list[Any]:
    """Results of an operation by rank."""
    made = Layout.parse(layout)

    @torch.inference_mode()
    def run(rank: int) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            for target, attribute, value in variant.replacements if variant else ():
                patch.setattr(target, attribute, value)
            return operation(mesh.make(made, CPU))

    return run_ranks(made.world, run)


def operands(dtype: torch.dtype, queries: int, keys: int, batch: int = 2) -> list[torch.Tensor]:
    """Queries, keys and values of 4 heads; the later the key, the larger its score may be."""
    generator = torch.Generator().manual_seed(5)
    q, k, v = (torch.randn(batch, size, 4, 16, generator=generator) for size in (queries, keys, keys))
    return [x.to(dtype) for x in (q, k * torch.linspace(0.5, 6.0, keys)[:, None, None], v)]


def attention_on(
    layout: str, each: Sequence[list[torch.Tensor]], backend: str = "sdpa", variant: Variant | None = None
) -> list[torch.Tensor]:
    """Whole results of attention among shares of whole operands."""

    def run(at: mesh.Mesh) -> list[torch.Tensor]:
        out = []
        for q, k, v in each:
            shares = [sequence.taken(x, 1, at) for x in (q, k, v)]
            mixed = sequence.attention(*shares, backend, queries=q.shape[1], keys=k.shape[1], mesh=at)
            out.append(sequence.gathered(mixed, q.shape[1], at))
        return out

    return on_mesh(layout, run, variant)[0]


def attention_alone(each: Sequence[list[torch.Tensor]], backend: str = "sdpa") -> list[torch.Tensor]:
    return [attend(q, k, v, None, backend) for q, k, v in each]
