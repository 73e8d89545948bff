"""Videos and sound files on disk, decoded by PyAV: every frame and every sample, or an error.

Shapes: F (frames), H, W (pixels), C (channels), N (audio samples).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from conformance.errors import InputError
from conformance.scratch import FrameStore

VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".mov")
SOUND_SUFFIXES = (".wav", ".flac", ".mp3", ".m4a", ".ogg", ".opus")
_LOSSLESS_PICTURES = ("ffv1", "png", "rawvideo")
_RGB = ("rgb24", "bgr24", "gbrp", "bgr0", "rgb0", "bgra", "rgba")
_LOSSLESS_SOUND = ("flac", "alac", "pcm_")


@dataclass(frozen=True, kw_only=True)
class Codec:
    """How a video was coded. crf: constant rate factor, where the file tells it; bit_rate: of the stream, bits/s."""

    name: str
    pixel_format: str
    rate: Fraction
    bit_rate: int
    crf: float | None

    @property
    def lossless(self) -> bool:
        return self.name in _LOSSLESS_PICTURES and self.pixel_format in _RGB

    def __str__(self) -> str:
        quality = "" if self.lossless else f" crf {self.crf:g}" if self.crf is not None else f" {self.bit_rate} bit/s"
        return f"{self.name}{quality}, {self.pixel_format}"


@dataclass(frozen=True, eq=False)
class Sound:
    """audio: float32 [C,N] at ``rate`` Hz."""

    audio: np.ndarray
    rate: int
    codec: str

    @property
    def lossless(self) -> bool:
        return self.codec.startswith(_LOSSLESS_SOUND)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    import av

    try:
        with av.open(str(path)) as container:
            yield container
    except (av.FFmpegError, OSError, EOFError, ValueError) as error:
        why = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise InputError(f"{path}: cannot be decoded ({why})") from None


def read_video(path: Path, store: FrameStore) -> Codec:
    """Decode every frame of the first video stream into ``store`` as RGB, one frame in memory at a time.

    InputError when the file cannot be decoded, has no video, holds damaged frames or ends before its stated length.
    """
    with _opened(path) as container:
        if not container.streams.video:
            raise InputError(f"{path}: no video stream")
        stream = container.streams.video[0]
        crf = None
        for packet in container.demux(stream):
            if packet.size and not store.count and crf is None:
                crf = _crf(bytes(packet))
            for frame in packet.decode():
                if frame.is_corrupt:
                    raise InputError(f"{path}: frame {store.count} is damaged")
                store.add(frame.to_ndarray(format="rgb24"), f"{path} frame {store.count}")
        if not store.count:
            raise InputError(f"{path}: no frames")
        rate = Fraction(stream.average_rate or 25)
        _check_length(path, container, stream, rate, store.count)
        seconds = store.count / rate
        bit_rate = stream.bit_rate or int(path.stat().st_size * 8 / seconds)
        name = stream.codec_context.name
        return Codec(
            name=_CODEC_NAMES.get(name, name),
            pixel_format=stream.codec_context.pix_fmt,
            rate=rate,
            bit_rate=int(bit_rate),
            crf=crf,
        )


_CODEC_NAMES = {"libdav1d": "av1", "libvpx-vp9": "vp9", "libvpx": "vp8"}  # decoders that are not called as the codec


def _crf(packet: bytes) -> float | None:
    """The rate factor that x264 and x265 write into the first packet."""
    found = re.search(rb"x26[45][^\0]*?\bcrf=([0-9.]+)", packet)
    return float(found.group(1)) if found else None


def _check_length(path: Path, container: Any, stream: Any, rate: Fraction, count: int) -> None:
    stated = stream.frames
    if not stated and container.duration:
        stated = int(container.duration * rate / 1_000_000) - 1  # the container's clock is coarse
    if count < stated:
        raise InputError(f"{path}: {count} frames can be decoded, the file states {stated}: it is damaged or cut off")


def read_sound(path: Path) -> Sound | None:
    """The first audio stream in full, or None without one. InputError when it cannot be decoded."""
    import av

    with _opened(path) as container:
        if not container.streams.audio:
            return None
        stream = container.streams.audio[0]
        resampler = av.AudioResampler(format="fltp")
        parts = [part.to_ndarray() for frame in container.decode(stream) for part in resampler.resample(frame)]
        parts += [part.to_ndarray() for part in resampler.resample(None)] if parts else []
        if not parts:
            raise InputError(f"{path}: no audio samples")
        audio = np.concatenate(parts, axis=1).astype(np.float32)
        stated = (
            int((stream.duration or 0) * stream.time_base * stream.rate) if stream.codec.name.startswith("pcm_") else 0
        )
        if audio.shape[1] < stated:
            raise InputError(
                f"{path}: {audio.shape[1]} audio samples, the file states {stated}: it is damaged or cut off"
            )
        return Sound(audio, stream.rate, stream.codec_context.name)
