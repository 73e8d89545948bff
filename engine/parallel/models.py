"""The models of a case over the ranks of a mesh."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TypeVar

from torch import nn

from engine.models.ltx2.transformer import LTX2Transformer
from engine.numerics import Numerics
from engine.parallel.cfg import spread_over
from engine.parallel.gemma3 import parallelize_gemma3
from engine.parallel.ltx2 import parallelize_ltx2
from engine.parallel.mesh import Mesh
from engine.pipelines.ltx2 import Models
from engine.sampling.branches import Spread

Model = TypeVar("Model", bound=nn.Module)


def on_ranks(models: Models, mesh: Mesh, numerics: Numerics) -> tuple[Models, Spread]:
    """Every stage's transformer parallelized, and who runs the forwards of a step.

    The text encoder is cut where the layout says so. The rest is whole on every rank.

    ``models`` stay as they are: the next case may have another layout, or merge another LoRA into whole weights.
    InputError names the first layer that the mesh does not divide.
    """

    def on_mesh(model: LTX2Transformer) -> LTX2Transformer:
        copied = _copy(model)
        parallelize_ltx2(copied, mesh, numerics)
        return copied

    first, parts = on_mesh(models.first), models.parts
    if mesh.layout.text:
        encoder = _copy(parts.text.model)
        parallelize_gemma3(encoder, mesh, numerics)
        parts = replace(parts, text=replace(parts.text, model=encoder))
    second = models.second
    if second is not None:
        upsampler, transformer = second
        second = (upsampler, first if transformer is models.first else on_mesh(transformer))
    return replace(models, first=first, second=second, parts=parts), spread_over(mesh)


def _copy(model: Model) -> Model:
    """A copy to be parallelized; its tensors are those of ``model``, which are replaced where they are cut."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, shared)
