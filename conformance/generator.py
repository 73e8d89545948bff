"""Generator, Sample and Probe: all that the comparator knows of an engine.

Shapes use B (outputs, one a prompt), F (frames), H, W (pixels), C (channels), N (audio samples), T (tokens).

Tap names, the same in every generator (that is what makes a first divergence findable):

====================================== ==================================================================
``text/{pos,neg}/embeds`` ``.../mask``  packed text encoder states [B,T,D*L] and token mask [B,T]
``connector/{pos,neg}/{video,audio}``   text context of each stream [B,T,D]
``noise/{video,audio}``                 initial noise, packed tokens [B,T,128] fp32
``image/{pixels,latents}``              given first frame: as the VAE gets it [1,3,1,H,W]; its clean tokens
``sigmas``                              noise levels [steps+1] fp32, the last is 0
``positions/{video,audio}``             token bounds [B,3|1,T,2] fp32: seconds and pixels; seconds
``step.NNN/latents/{video,audio}``      state at the start of the step, packed
``step.NNN/BRANCH/velocity/{video,audio}``  model output; BRANCH is cond, uncond, stg or modality
``step.NNN/BRANCH/block.NN/...``        inside the DiT, see ``BLOCK_TAPS``
``step.NNN/guided_x0/{video,audio}``    after guidance and rescale
``latents/final/{video,audio}``         state after the last step, packed
``latents/decode/{video,audio}``        denormalised, unpacked, as the decoders receive it
``vae/frames`` ``audio/waveform``       decoder outputs
====================================== ==================================================================

In a two-stage pipeline ``noise``, ``image``, ``sigmas``, ``positions``, ``step`` and ``latents/final`` stand behind
``stage.1/`` and ``stage.2/``; between them are ``upsample/input`` and ``upsample/output``, unpacked latents as the
upsampler gets and gives them, and ``stage.2/start/{video,audio}``, packed, before noise is added.
A res2s step evaluates the model twice: the second time is ``step.NNN.mid/...``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

if TYPE_CHECKING:
    from conformance.case import Case

# Submodule of a DiT block (names of the diffusers layout) -> tap. Both engines hang hooks on these.
BLOCK_TAPS = {
    "attn1.norm_q": "attn1/q_norm",
    "attn1.norm_k": "attn1/k_norm",
    "attn1": "attn1/out",
    "audio_attn1": "audio_attn1/out",
    "attn2": "attn2/out",
    "audio_attn2": "audio_attn2/out",
    "audio_to_video_attn": "a2v/out",
    "video_to_audio_attn": "v2a/out",
    "ff": "ff/out",
    "audio_ff": "audio_ff/out",
}


def tensor_digest(tensor: torch.Tensor) -> str:
    """sha256 over dtype, shape and the row-major bytes of a tensor."""
    data = tensor.detach().cpu().contiguous()
    head = f"{data.dtype}{tuple(data.shape)}".encode()
    return hashlib.sha256(head + data.flatten().view(torch.uint8).numpy().tobytes()).hexdigest()


@dataclass(frozen=True)
class Tap:
    """One recorded tensor: identity and the statistics that survive when the tensor itself is not kept."""

    dtype: str
    shape: tuple[int, ...]
    sha256: str
    rms: float
    max_abs: float
    finite: bool

    @classmethod
    def of(cls, tensor: torch.Tensor) -> Tap:
        wide = tensor.detach().contiguous().double()  # sums follow the memory order
        return cls(
            dtype=str(tensor.dtype).removeprefix("torch."),
            shape=tuple(tensor.shape),
            sha256=tensor_digest(tensor),
            rms=float(wide.square().mean().sqrt()) if wide.numel() else 0.0,
            max_abs=float(wide.abs().max()) if wide.numel() else 0.0,
            finite=bool(torch.isfinite(wide).all()),
        )


def step_tap(step: int, *, mid: bool = False) -> str:
    """``step.003``, or ``step.003.mid`` for the second evaluation of a second-order step."""
    return f"step.{step:03d}.mid" if mid else f"step.{step:03d}"


class Probe:
    """Collects taps in the order they happen. A name is recorded once; a second time is a bug in the generator.

    depth: ``step`` leaves out everything inside a DiT block, ``block`` records it too.
    keep: hold the tensors (on the CPU) beside their statistics. on_tap: called with every name recorded.
    """

    def __init__(
        self, *, depth: str = "block", keep: bool = True, on_tap: Callable[[str], None] = lambda name: None
    ) -> None:
        if depth not in ("step", "block"):
            raise ValueError(f"depth is {depth!r}; expected 'step' or 'block'")
        self.depth, self.keep, self.on_tap = depth, keep, on_tap
        self.trace: dict[str, Tap] = {}
        self.tensors: dict[str, torch.Tensor] = {}
        self._forward: tuple[str, tuple[str, ...]] | None = None
        self._scope = ""

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Everything recorded inside stands behind ``name/``."""
        outer, self._scope = self._scope, f"{self._scope}{name}/"
        try:
            yield
        finally:
            self._scope = outer

    def tap(self, name: str, tensor: torch.Tensor) -> None:
        """Record ``tensor`` under ``name``. ValueError when the name was recorded before."""
        name = self._scope + name
        if name in self.trace:
            raise ValueError(f"tap {name!r} was recorded twice")
        self.trace[name] = Tap.of(tensor)
        if self.keep:
            self.tensors[name] = tensor.detach().cpu().clone()
        self.on_tap(name)

    @contextmanager
    def forward(self, step: str, branches: Sequence[str]) -> Iterator[None]:
        """One forward of the DiT whose batch is the branches one after the other, equal shares each.

        step: its tap, see :func:`step_tap`.
        """
        self._forward = (step, tuple(branches))
        try:
            yield
        finally:
            self._forward = None

    def model_tap(self, name: str, tensor: torch.Tensor) -> None:
        """Record a tensor inside a forward, split by branch along dimension 0."""
        if self._forward is None:
            raise ValueError(f"tap {name!r} outside of Probe.forward")
        step, branches = self._forward
        if tensor.shape[0] % len(branches):
            raise ValueError(f"tap {name!r}: batch {tensor.shape[0]} does not split into branches {branches}")
        for branch, part in zip(branches, tensor.chunk(len(branches)), strict=True):
            self.tap(f"{step}/{branch}/{name}", part)


@dataclass(kw_only=True)
class Sample:
    """What a generator produced for a case.

    frames: uint8 [B,F,H,W,3], every frame, never through a lossy codec. frames_float: float32 in [0,1], same
    shape, where the generator has it. audio: float32 [B,C,N] at ``audio_rate`` Hz. latents: final state by
    name (``video``, ``audio``), packed, as sampled. trace: taps by name. tensors: tapped tensors, when kept.
    resolved: echo of every parameter after the generator's own processing; the keys of ``HANDSHAKE`` must be
    there. ledger: versions, device, flags and picks. shared: components that are the reference's own code.
    """

    frames: np.ndarray
    frames_float: np.ndarray | None
    audio: np.ndarray | None
    audio_rate: int | None
    latents: dict[str, torch.Tensor]
    trace: dict[str, Tap] = field(default_factory=dict)
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    resolved: dict[str, Any] = field(default_factory=dict)
    ledger: dict[str, Any] = field(default_factory=dict)
    shared: tuple[str, ...] = ()


def position_digests(trace: Mapping[str, Tap], stage: str = "") -> dict[str, str]:
    """sha256 of the token bounds of each stream, as they were tapped. stage: ``stage.1``, empty for the only one."""
    return {stream: trace[f"{stage}/positions/{stream}".lstrip("/")].sha256 for stream in ("video", "audio")}


def output_digests(sample: Sample) -> dict[str, str]:
    """sha256 of ``frames``, of ``latents/NAME`` and, where there is sound, of ``audio``."""
    found = {f"latents/{name}": tensor_digest(value) for name, value in sample.latents.items()}
    for name, array in (("frames", sample.frames), ("audio", sample.audio)):
        if array is not None:
            found[name] = tensor_digest(torch.from_numpy(array))
    return found


# Inputs that both sides must agree on before any number is compared: a difference is INCOMPARABLE.
HANDSHAKE = (
    "height",
    "width",
    "num_frames",
    "frame_rate",
    "steps",
    "sigmas",
    "video_tokens",
    "audio_tokens",
    "guidance",
    "stg_blocks",
    "skip_v2a",
    "dtype",
    "quantization",
    "noise",
    "positions",
    "image",
    "second_stage",
    "vae_tiling",
    "embeds",
    "weights",
)


class Generator(Protocol):
    """Anything that can produce output for a case."""

    @property
    def name(self) -> str: ...

    def generate(self, case: Case, probe: Probe) -> Sample:
        """Produce the case. UnsupportedCase when it cannot; any other error is the generator's failure."""
        ...
