"""Sequence parallelism: the tokens of both streams over the ranks of ``ring`` and ``ulysses``.

A rank holds one run of the tokens of video and one of audio, its place in the sequence being ring * ulysses ranks +
ulysses. What is computed token by token needs nobody else; attention among tokens exchanges heads for tokens (Ulysses)
and passes keys around (ring); text is whole on every rank, and so are the velocities at the end.
Legend: B batch, T tokens of a stream, t tokens of a rank, S keys, s keys of a rank, H heads, d head dim, C channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from conformance.errors import bad_field
from engine.backends import attend
from engine.layers.attention import Attention
from engine.models.ltx2.transformer import LTX2Transformer, ModelInputs
from engine.parallel import ring, ulysses
from engine.parallel.mesh import Mesh
from engine.taps import record_whole

# streams of the queries and of the keys of what is exchanged; keys of text attention are whole
EXCHANGED = {
    "attn1": ("video", "video"),
    "audio_attn1": ("audio", "audio"),
    "audio_to_video_attn": ("video", "audio"),
    "video_to_audio_attn": ("audio", "video"),
}
_STREAMS = {
    "attn1": "video",
    "attn1.norm_q": "video",
    "attn1.norm_k": "video",
    "audio_attn1": "audio",
    "attn2": "video",
    "audio_attn2": "audio",
    "audio_to_video_attn": "video",
    "video_to_audio_attn": "audio",
    "ff": "video",
    "audio_ff": "audio",
}
# a float32 product of fewer rows than this runs through other code on CPUs, with other last bits
_ROWS = 4


@dataclass(frozen=True, kw_only=True)
class Share:
    """A rank's run of ``total`` tokens: as many on every rank, so that the last ranks may hold padding or only that."""

    total: int
    ranks: int
    place: int

    @property
    def size(self) -> int:
        return max(-(-self.total // self.ranks), min(self.total, _ROWS))

    @property
    def start(self) -> int:
        return min(self.place * self.size, self.total)

    @property
    def real(self) -> int:
        """How many of them are no padding."""
        return min(self.size, self.total - self.start)


def ranks(mesh: Mesh) -> int:
    """Among how many ranks the tokens are shared out."""
    return mesh.size("ring") * mesh.size("ulysses")


def share(total: int, mesh: Mesh) -> Share:
    place = mesh.index("ring") * mesh.size("ulysses") + mesh.index("ulysses")
    return Share(total=total, ranks=ranks(mesh), place=place)


def taken(x: torch.Tensor, dim: int, mesh: Mesh) -> torch.Tensor:
    """This rank's share of ``x`` along its axis of tokens, then zeros, in the memory order of ``x``: it moves bits."""
    own = share(x.shape[dim], mesh)
    out = torch.zeros_like(x.narrow(dim, 0, own.size))
    out.narrow(dim, 0, own.real).copy_(x.narrow(dim, own.start, own.real))
    return out


def gathered(x_Bt: torch.Tensor, total: int, mesh: Mesh) -> torch.Tensor:
    """The shares [B,t,..] of all ranks in their order without the padding: [B,T,..], contiguous."""
    for axis in ("ulysses", "ring"):
        if mesh.size(axis) > 1:
            parts = [torch.empty_like(x_Bt, memory_format=torch.contiguous_format) for _ in range(mesh.size(axis))]
            dist.all_gather(parts, x_Bt.contiguous(), group=mesh.group(axis))
            x_Bt = torch.cat(parts, dim=1)
    return x_Bt[:, :total].contiguous()


def attention(
    q_BtHd: torch.Tensor,
    k_BsHd: torch.Tensor,
    v_BsHd: torch.Tensor,
    backend: str,
    *,
    queries: int,
    keys: int,
    mesh: Mesh,
) -> torch.Tensor:
    """Attention of ``queries`` to ``keys`` tokens, of which every rank brings its share: [B,t,H,d].

    Under Ulysses alone the kernel sees the tokens of one device, in their order and without padding.
    """
    q, k, v = (ulysses.to_heads(x, mesh) for x in (q_BtHd, k_BsHd, v_BsHd))
    if mesh.size("ring") > 1:
        return ulysses.to_tokens(ring.attend(q, k, v, keys=keys, mesh=mesh), mesh)
    out = torch.zeros_like(q)
    out[:, :queries] = attend(unpadded(q, queries), unpadded(k, keys), unpadded(v, keys), None, backend)
    return ulysses.to_tokens(out, mesh)


def unpadded(x_BTHd: torch.Tensor, tokens: int) -> torch.Tensor:
    return x_BTHd[:, :tokens].contiguous()


class Tokens:
    """What a model's forward exchanges: how many tokens each stream has is known only in the forward itself."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._totals: dict[str, int] = {}

    def scatter(self, model: nn.Module, args: Any) -> Any:
        """Before the forward: whole inputs to the shares of this rank. Positions are those in the whole sequence."""
        inputs, numerics = args
        self._totals = {"video": inputs.video.shape[1], "audio": inputs.audio.shape[1]}
        return self._shares(inputs), numerics

    def _shares(self, inputs: ModelInputs) -> ModelInputs:
        def times(x: torch.Tensor) -> torch.Tensor:
            return taken(x, 1, self._mesh) if x.ndim == 2 else x

        return replace(
            inputs,
            video=taken(inputs.video, 1, self._mesh),
            audio=taken(inputs.audio, 1, self._mesh),
            timestep=times(inputs.timestep),
            audio_timestep=times(inputs.audio_timestep),
            video_bounds=taken(inputs.video_bounds, 2, self._mesh),
            audio_bounds=taken(inputs.audio_bounds, 2, self._mesh),
        )

    def gather(self, model: nn.Module, args: Any, velocities: Any) -> Any:
        """After the forward: whole velocities on every rank."""
        return self.whole_streams(velocities)

    def whole_streams(self, shares: Any) -> Any:
        """Video and audio [B,t,C] to [B,T,C]."""
        video, audio = shares
        return self.whole("video")(video), self.whole("audio")(audio)

    def whole(self, stream: str) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda x_Bt: gathered(x_Bt, self._totals[stream], self._mesh)

    def whole_on_cpu(self, stream: str, gates: nn.Module) -> None:
        """The gates of all tokens on every rank, each of which keeps its own, where the device is a CPU.

        A CPU computes the last few elements of a tensor by other code than the rest, and sigmoids of them have other
        last bits.
        """
        whole = self.whole(stream)

        def gather(module: nn.Module, args: Any) -> Any:
            (logits,) = args
            return (whole(logits),) if logits.device.type == "cpu" else args

        def scatter(module: nn.Module, args: Any, out: torch.Tensor) -> torch.Tensor:
            return taken(out, 1, self._mesh) if out.device.type == "cpu" else out

        gates.register_forward_pre_hook(gather)
        gates.register_forward_hook(scatter)

    def kernel(self, queries: str, keys: str) -> Callable[..., torch.Tensor]:
        """The kernel of an attention between streams."""

        def mix(
            q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask_BS: torch.Tensor | None, backend: str
        ) -> torch.Tensor:
            assert mask_BS is None, "only text is masked"
            totals = self._totals
            return attention(q, k, v, backend, queries=totals[queries], keys=totals[keys], mesh=self._mesh)

        return mix


def check_heads(where: str, attention: Attention, mesh: Mesh) -> None:
    """InputError unless a rank of ``tp`` has heads for every rank of ``ulysses``."""
    parts = mesh.size("tp") * mesh.size("ulysses")
    if attention.heads % parts:
        raise bad_field(where, "heads", attention.heads, f"a multiple of tp * ulysses, which is {parts}")


def shard_tokens(model: LTX2Transformer, mesh: Mesh) -> None:
    """In place: whole tokens in and whole velocities out, a share of the tokens between them."""
    tokens = Tokens(mesh)
    model.register_forward_pre_hook(tokens.scatter)
    model.register_forward_hook(tokens.gather)
    for block in model.transformer_blocks:
        for name, streams in EXCHANGED.items():
            block.get_submodule(name).kernel = tokens.kernel(*streams)  # type: ignore[assignment]
        for name, stream in _STREAMS.items():
            module = block.get_submodule(name)
            record_whole(module, tokens.whole(stream))
            if isinstance(module, Attention):
                tokens.whole_on_cpu(stream, module.head_gates)
        record_whole(block, tokens.whole_streams)
