"""The DiT of LTX-2 over the ranks of a mesh."""

from __future__ import annotations

from conformance.errors import UnsupportedCase
from engine.layers.attention import Attention
from engine.layers.feedforward import FeedForward
from engine.models.ltx2.transformer import LTX2Transformer
from engine.numerics import Numerics
from engine.parallel import ring, sequence, tensor
from engine.parallel.mesh import Mesh


def parallelize_ltx2(model: LTX2Transformer, mesh: Mesh, numerics: Numerics) -> None:
    """Change a loaded model in place so that every rank puts out the whole velocities.

    LoRAs are merged before. InputError, before any change, names the first layer that the mesh does not divide;
    UnsupportedCase names numerics that the layout does not have.
    """
    _check(model, mesh, numerics)
    if mesh.size("tp") > 1:
        _shard_heads_and_features(model, mesh, numerics)
    if sequence.ranks(mesh) > 1:
        sequence.shard_tokens(model, mesh)


def _check(model: LTX2Transformer, mesh: Mesh, numerics: Numerics) -> None:
    if mesh.size("tp") > 1 and numerics.autocast != "off":
        raise UnsupportedCase(f"engine: 'autocast' is {numerics.autocast!r}; under tensor parallelism it is 'off'")
    if mesh.size("ring") > 1:
        ring.check(numerics)
    for index, block in enumerate(model.transformer_blocks):
        for name, module in block.named_modules():
            where = f"transformer_blocks.{index}.{name}"
            if isinstance(module, Attention):
                tensor.check_attention(where, module, mesh)
                if name in sequence.EXCHANGED:
                    sequence.check_heads(where, module, mesh)
            elif isinstance(module, FeedForward):
                tensor.check_feed_forward(where, module, mesh)


def _shard_heads_and_features(model: LTX2Transformer, mesh: Mesh, numerics: Numerics) -> None:
    """Attention by heads and feed-forward by hidden features; the rest is whole on every rank."""
    for module in list(model.transformer_blocks.modules()):
        if isinstance(module, Attention):
            tensor.shard_attention(module, mesh, numerics)
        elif isinstance(module, FeedForward):
            tensor.shard_feed_forward(module, mesh, numerics)
