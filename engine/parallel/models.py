"""The models of a case over the ranks of a mesh."""

from __future__ import annotations

import copy
from dataclasses import replace

from engine.models.ltx2.transformer import LTX2Transformer
from engine.numerics import Numerics
from engine.parallel.cfg import spread_over
from engine.parallel.ltx2 import parallelize_ltx2
from engine.parallel.mesh import Mesh
from engine.pipelines.ltx2 import Models
from engine.sampling.branches import Spread


def on_ranks(models: Models, mesh: Mesh, numerics: Numerics) -> tuple[Models, Spread]:
    """Every stage's transformer parallelized, and who runs the forwards of a step. The rest is whole on every rank.

    ``models`` stay as they are: the next case may have another layout, or merge another LoRA into whole weights.
    InputError names the first layer that the mesh does not divide.
    """
    first = _parallel(models.first, mesh, numerics)
    second = models.second
    if second is not None:
        upsampler, transformer = second
        second = (upsampler, first if transformer is models.first else _parallel(transformer, mesh, numerics))
    return replace(models, first=first, second=second), spread_over(mesh)


def _parallel(model: LTX2Transformer, mesh: Mesh, numerics: Numerics) -> LTX2Transformer:
    """A parallelized copy; what is whole on every rank is shared with ``model``."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    copied = copy.deepcopy(model, shared)
    parallelize_ltx2(copied, mesh, numerics)
    return copied
