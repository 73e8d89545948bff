"""Frames on disk that behave as an array, so that a film need not fit into memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from conformance.errors import InputError


class FrameStore:
    """Frames of one size, written to a file one by one. Shapes: F (frames), H, W (pixels)."""

    def __init__(self, path: Path) -> None:
        self.path, self.count = path, 0
        self.shape: tuple[int, ...] = ()
        self.first = ""
        path.write_bytes(b"")

    def add(self, frame_HW3: np.ndarray, name: str) -> None:
        """Append a uint8 frame. InputError when it has another size than the first one."""
        if not self.count:
            self.shape, self.first = frame_HW3.shape, name
        elif frame_HW3.shape != self.shape:
            raise different_sizes((self.first, self.shape), (name, frame_HW3.shape))
        with self.path.open("ab") as file:
            file.write(np.ascontiguousarray(frame_HW3).tobytes())
        self.count += 1

    def frames(self) -> np.ndarray:
        """All of them, uint8 [F,H,W,3], read from the file as they are used."""
        return np.memmap(self.path, np.uint8, "r", shape=(self.count, *self.shape))


def different_sizes(*files: tuple[str, tuple[int, ...]]) -> InputError:
    """files: name and shape [H,W,3] of two frames."""
    sizes = " and ".join(f"{name} is {shape[1]}x{shape[0]}" for name, shape in files)
    return InputError(f"different sizes: {sizes} pixels; nothing is resized")
