"""The DiT of LTX-2 over the ranks of a mesh."""

from __future__ import annotations

from conformance.errors import UnsupportedCase
from engine.layers.attention import Attention
from engine.layers.feedforward import FeedForward
from engine.models.ltx2.transformer import LTX2Transformer
from engine.numerics import Numerics
from engine.parallel import tensor
from engine.parallel.mesh import Mesh


def parallelize_ltx2(model: LTX2Transformer, mesh: Mesh, numerics: Numerics) -> None:
    """Change a loaded model in place so that every rank puts out the whole velocities.

    LoRAs are merged before. InputError, before any change, names the first layer that the mesh does not divide.
    """
    if mesh.size("ring") > 1 or mesh.size("ulysses") > 1:
        raise UnsupportedCase(f"engine: 'layout' is {mesh.layout.name!r}; the engine has the axes 'cfg' and 'tp'")
    if mesh.size("tp") > 1:
        _shard_heads_and_features(model, mesh, numerics)


def _shard_heads_and_features(model: LTX2Transformer, mesh: Mesh, numerics: Numerics) -> None:
    """Attention by heads and feed-forward by hidden features; the rest is whole on every rank."""
    if numerics.autocast != "off":
        raise UnsupportedCase(f"engine: 'autocast' is {numerics.autocast!r}; under tensor parallelism it is 'off'")
    blocks = model.transformer_blocks
    layers = [(f"transformer_blocks.{name}", module) for name, module in blocks.named_modules()]
    for name, module in layers:
        if isinstance(module, Attention):
            tensor.check_attention(name, module, mesh)
        elif isinstance(module, FeedForward):
            tensor.check_feed_forward(name, module, mesh)
    for _, module in layers:
        if isinstance(module, Attention):
            tensor.shard_attention(module, mesh, numerics)
        elif isinstance(module, FeedForward):
            tensor.shard_feed_forward(module, mesh, numerics)
