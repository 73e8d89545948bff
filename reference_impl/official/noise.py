"""The harness's noise in the place of what the packages draw; what is made of it remains theirs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from conformance.generator import Probe
from conformance.inputs import HALF_STEP_SEED, STEP_SEED, draw_injected, noise_generator
from reference_impl.official.stages import STREAMS


class Drawn(TorchFunctionMode):
    """While active, ``torch.randn`` gives ``noise``, in the dtype and on the device it is asked for.

    RuntimeError when it is asked for another shape.
    """

    def __init__(self, noise: torch.Tensor) -> None:
        super().__init__()
        self._noise = noise

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not torch.randn:
            return func(*args, **(kwargs or {}))
        shape = tuple(args[0]) if len(args) == 1 else tuple(args)
        if shape != tuple(self._noise.shape):
            raise RuntimeError(f"injected noise {tuple(self._noise.shape)} does not fit {shape}")
        return self._noise.to(device=kwargs["device"], dtype=kwargs["dtype"])


class InjectedNoise:
    """The packages' ``GaussianNoiser`` on noise by stream: video first, then audio.

    start: whether there are latents to begin with, to be tapped before they are noised.
    """

    def __init__(self, noise: Mapping[str, torch.Tensor], probe: Probe, *, start: bool = False) -> None:
        self._left, self._probe, self._start = [(stream, noise[stream]) for stream in STREAMS], probe, start

    def __call__(self, latent_state: Any, noise_scale: Any) -> Any:
        from ltx_core.components.noisers import GaussianNoiser

        stream, noise = self._left.pop(0)
        if self._start:
            self._probe.tap(f"start/{stream}", latent_state.latent)
        self._probe.tap(f"noise/{stream}", noise)
        with Drawn(noise):
            return GaussianNoiser(generator=torch.Generator())(latent_state, noise_scale)


class InjectedStepNoise:
    """What res2s injects, from the harness's own generators of the same seeds. One for each stage.

    normalised: the packages' function of a state and a generator, which draws and normalises.
    """

    def __init__(self, normalised: Callable[..., torch.Tensor]) -> None:
        self._normalised = normalised
        generators = (noise_generator(seed) for seed in (STEP_SEED, HALF_STEP_SEED))
        self._by_seed = {generator.initial_seed(): generator for generator in generators}

    def __call__(self, state: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        raw = draw_injected(self._by_seed[generator.initial_seed()], tuple(state.shape))
        with Drawn(raw):
            return self._normalised(state, generator)
