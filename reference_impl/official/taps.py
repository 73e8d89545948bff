"""Taps of the official modules, hung on from outside."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from conformance.generator import BLOCK_TAPS, Probe, step_tap
from reference_impl.official.stages import STREAMS

# the names of the diffusers layout differ in these alone
_NORMS = {"norm_q": "q_norm", "norm_k": "k_norm"}


def evaluation_tap(count: int, second_order: bool) -> str:
    """Tap of the model evaluation number ``count`` of a stage. res2s has two a step, and one at the end."""
    return step_tap(count // 2, mid=count % 2 == 1) if second_order else step_tap(count)


def tapped(
    denoise: Callable[..., tuple[Any, Any]],
    probe: Probe,
    second_order: bool,
    x0: Callable[[Any], torch.Tensor] = lambda result: result,
) -> Callable[..., Any]:
    """A denoising function that records what it returns: guided x0, before given tokens are put back.

    x0: of the result for one stream.
    """
    count = -1

    def function(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        nonlocal count
        count += 1
        guided = denoise(*args, **kwargs)
        for stream, result in zip(STREAMS, guided, strict=True):
            probe.tap(f"{evaluation_tap(count, second_order)}/guided_x0/{stream}", x0(result))
        return guided

    return function


def ended(sampler: Callable[..., Any], probe: Probe) -> tuple[Callable[..., Any], dict[str, torch.Tensor]]:
    """A sampling loop without its progress bar that taps its final states, and where it leaves them, packed."""
    packed: dict[str, torch.Tensor] = {}

    def loop(*args: Any, **kwargs: Any) -> Any:
        with contextlib.redirect_stderr(io.StringIO()):
            states = sampler(*args, **kwargs)
        for stream, state in zip(STREAMS, states, strict=True):
            packed[stream] = state.latent
            probe.tap(f"latents/final/{stream}", state.latent)
        return states

    return loop, packed


@contextmanager
def record(modules: Any, probe: Probe, negative: torch.Tensor | None, second_order: bool = False) -> Iterator[None]:
    """While open, every forward is tapped. negative: the video context of the negative prompt, where it is used."""
    handles: list[Any] = []
    forward: list[Any] = []
    count, branch = -1, ""
    dit = modules.transformer.velocity_model

    def enter(module: Any, args: tuple[Any, ...]) -> None:
        nonlocal count, branch
        streams, perturbations = dict(zip(STREAMS, args[:2], strict=True)), args[2]
        branch = _branch(streams["video"], perturbations, negative, branch, modules.blocks)
        if branch == "cond":
            count += 1
            for stream, modality in streams.items():
                if count == 0:
                    probe.tap(f"positions/{stream}", modality.positions.float())
                probe.tap(f"{evaluation_tap(count, second_order)}/latents/{stream}", modality.latent)
        forward.append(probe.forward(evaluation_tap(count, second_order), (branch,)))
        forward[-1].__enter__()

    def leave(module: Any, args: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
        for stream, velocity in zip(STREAMS, output, strict=True):
            probe.model_tap(f"velocity/{stream}", velocity)
        forward.pop().__exit__(None, None, None)

    try:
        handles.append(dit.register_forward_pre_hook(enter))
        handles.append(dit.register_forward_hook(leave))
        if probe.depth == "block":
            handles.extend(_block_hooks(dit, probe))
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def record_decoders(modules: Any, probe: Probe) -> Iterator[None]:
    """While open, what the decoders are given and return is tapped."""
    handles = list(_decoder_hooks(modules, probe))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _branch(video: Any, perturbations: Any, negative: torch.Tensor | None, last: str, blocks: int) -> str:
    """last: the branch before this one. Where nothing is perturbed 1.0.0 passes None, 1.2.0 an empty configuration."""
    from ltx_core.guidance.perturbations import PerturbationType as Kind

    def skipped(*kinds: Any) -> bool:
        each = ((kind, block) for kind in kinds for block in range(blocks))
        return perturbations is not None and any(perturbations.any_in_batch(*pair) for pair in each)

    if skipped(Kind.SKIP_A2V_CROSS_ATTN):
        return "modality"
    if skipped(Kind.SKIP_VIDEO_SELF_ATTN, Kind.SKIP_AUDIO_SELF_ATTN):
        return "stg"
    # both prompts can be the same text: the negative one comes second
    return "uncond" if last == "cond" and negative is not None and video.context.equal(negative) else "cond"


def _decoder_hooks(modules: Any, probe: Probe) -> Iterator[Any]:
    def entering(name: str) -> Callable[..., None]:
        return lambda module, args: probe.tap(name, args[0])

    def leaving(name: str) -> Callable[..., None]:
        return lambda module, args, output: probe.tap(name, output)

    # the first convolutions: the decoders denormalise by themselves
    yield modules.video_decoder.conv_in.register_forward_pre_hook(entering("latents/decode/video"))
    yield modules.audio_decoder.conv_in.register_forward_pre_hook(entering("latents/decode/audio"))
    yield modules.video_decoder.register_forward_hook(leaving("vae/frames"))
    yield modules.vocoder.register_forward_hook(leaving("audio/waveform"))


def _block_hooks(dit: Any, probe: Probe) -> Iterator[Any]:
    def inner(name: str) -> Callable[..., None]:
        return lambda module, args, output: probe.model_tap(name, output)

    def outer(index: int) -> Callable[..., None]:
        def hook(module: Any, args: tuple[Any, ...], output: tuple[Any, ...]) -> None:
            for stream, state in zip(STREAMS, output, strict=True):
                probe.model_tap(f"block.{index:02d}/{stream}", state.x)

        return hook

    for index, block in enumerate(dit.transformer_blocks):
        for path, tap in BLOCK_TAPS.items():
            name = ".".join(_NORMS.get(part, part) for part in path.split("."))
            yield block.get_submodule(name).register_forward_hook(inner(f"block.{index:02d}/{tap}"))
        yield block.register_forward_hook(outer(index))
