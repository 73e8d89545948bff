"""Gemma3 over the ranks of the ``tp`` axis: query heads and MLP features, with the key heads that they share.

Legend: H query heads, K key heads, d head dim.
"""

from __future__ import annotations

from torch import nn

from engine.models.gemma3.model import Gemma3TextModel
from engine.numerics import Numerics
from engine.parallel.mesh import Mesh
from engine.parallel.tensor import RowLinear, check_divides, cut_outputs


def parallelize_gemma3(model: Gemma3TextModel, mesh: Mesh, numerics: Numerics) -> None:
    """Change a loaded model in place so that every rank puts out the whole hidden states.

    Embeddings and norms are whole on every rank: q and k are normalised per head, and each residual state is needed in
    full. InputError, before any change, names the first size that the axis does not divide; key heads are not
    repeated, so that it must divide them too.
    """
    config = model.config
    for field in ("num_attention_heads", "num_key_value_heads", "intermediate_size"):
        check_divides("text_encoder", field, getattr(config, field), mesh)
    for layer in model.layers:
        attention, mlp = layer.get_submodule("self_attn"), layer.get_submodule("mlp")
        # rows of a projection are H or K blocks of d, a rank's query heads being those of its key heads
        for module, columns, row in (
            (attention, ("q_proj", "k_proj", "v_proj"), "o_proj"),
            (mlp, ("gate_proj", "up_proj"), "down_proj"),
        ):
            for name in columns:
                cut_outputs(_linear(module, name), mesh)
            setattr(module, row, RowLinear(_linear(module, row), mesh, numerics))


def _linear(module: nn.Module, name: str) -> nn.Linear:
    layer = module.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    return layer
