"""Random draws inside somebody else's code, replaced by given noise."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class InjectedNoise(TorchFunctionMode):
    """Inside the block ``torch.randn`` returns the noise it was given instead of drawing.

    shaped: the same fp32 noise in every shape it may be asked for, which its caller may pack before it draws or after.
    It comes contiguous and rounded to the dtype asked for, as a draw would. draws: how many there were. RuntimeError
    for a draw of another shape.
    """

    def __init__(self, *shaped: torch.Tensor) -> None:
        super().__init__()
        self.shaped, self.draws = shaped, 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is not torch.randn:
            return func(*args, **kwargs)
        self.draws += 1
        shape = tuple(args[0]) if len(args) == 1 and not isinstance(args[0], int) else args
        for noise in self.shaped:
            if tuple(noise.shape) == shape:
                return noise.to(device=kwargs.get("device"), dtype=kwargs.get("dtype")).contiguous()
        known = " or ".join(str(tuple(noise.shape)) for noise in self.shaped)
        raise RuntimeError(f"noise of shape {shape} is drawn; the injected noise is {known}")
