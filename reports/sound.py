"""Both sides' sound as pictures: waveforms as inline SVG, spectrograms as embedded images.

Shapes: C (channels), N (samples), K (frequencies), T (columns of time).
"""

from __future__ import annotations

import wave
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from markupsafe import Markup
from PIL import Image

from conformance.media import cubehelix
from conformance.results import CaseResult
from conformance.verdicts import Verdict
from reports.text import inside
from reports.thumbs import Budget, Thumb, embed

WIDTH, LANE, COLUMNS = 640, 64, 160  # of the waveform: pixels, pixels a channel, points a line
LANES = 2  # channels drawn
SPECTRUM = (320, 96)  # columns and frequencies of a spectrogram
WINDOW, RANGE_DB, DIFFERENCE_DB = 512, 80.0, 40.0
_LONGEST = 30.0  # seconds drawn


@dataclass(frozen=True)
class Sound:
    """``seconds`` and ``rate`` in words; ``spectra`` are (title, picture)."""

    words: str
    waveform: Markup
    spectra: tuple[tuple[str, Thumb], ...]


def sound_view(root: Path, case: CaseResult, budget: Budget) -> Sound | None:
    """Waveforms and spectrograms of a case's saved sound; None when it has none that can be read."""
    sides = {name: _read(root, case.files.get(f"{name}_audio", "")) for name in ("candidate", "reference")}
    read = {name: side for name, side in sides.items() if side is not None}
    if not read:
        return None
    exact = case.verdict is Verdict.PASS_EXACT and len(read) == 2
    shown = {"candidate": read["candidate"]} if exact else read
    audio_CN, rate = next(iter(shown.values()))
    longest = max(audio.shape[1] for audio, _ in shown.values())
    channels = f"{len(audio_CN)} channel{'' if len(audio_CN) == 1 else 's'}"
    words = f"{longest / rate:.2f} s, {channels}, {rate} Hz" + (", both sides equal" if exact else "")
    drawing = _waveform({name: audio for name, (audio, _) in shown.items()}, longest)
    return Sound(words, drawing, _spectra(shown, budget))


def _read(root: Path, link: str) -> tuple[np.ndarray, int] | None:
    """16-bit PCM as float [C,N] in [-1, 1] and its rate, at most ``_LONGEST`` seconds."""
    file = inside(root, link) if link else None
    if file is None:
        return None
    try:
        with wave.open(str(file), "rb") as source:
            channels, rate = source.getnchannels(), source.getframerate()
            data = source.readframes(int(_LONGEST * rate))
            if source.getsampwidth() != 2 or not rate or not data:
                return None
    except (OSError, EOFError, wave.Error):
        return None
    samples = np.frombuffer(data[: len(data) // (2 * channels) * 2 * channels], "<i2")
    return samples.reshape(-1, channels).T / 32768.0, rate


def _waveform(sides: dict[str, np.ndarray], longest: int) -> Markup:
    """One lane a channel: the envelope of the reference as a line, of the candidate as an area over it."""
    lanes = min(LANES, max(len(audio) for audio in sides.values()))
    loudest = max(float(np.abs(audio).max()) for audio in sides.values()) or 1.0
    parts = []
    for lane in range(lanes):
        middle = LANE * (lane + 0.5)
        parts.append(f'<line class="axis" x1="0" x2="{WIDTH}" y1="{middle:.0f}" y2="{middle:.0f}"/>')
        for name, audio in sides.items():
            if lane < len(audio):
                points = _envelope(audio[lane], longest, middle, loudest)
                parts.append(f'<polygon class="{name}" points="{points}"/>')
    label = f"Waveform of {' and '.join(sides)}, {lanes} of the channels"
    return Markup(
        f'<svg class="wave" viewBox="0 0 {WIDTH} {lanes * LANE}" preserveAspectRatio="none" role="img" '
        f'aria-label="{label}">{"".join(parts)}</svg>'
    )


def _envelope(samples_N: np.ndarray, longest: int, middle: float, loudest: float) -> str:
    """The largest and the smallest sample of each column, there and back."""
    edges = np.linspace(0, longest, COLUMNS + 1).astype(int)
    columns = [samples_N[start:stop] for start, stop in pairwise(edges) if start < len(samples_N)]
    scale, step = 0.46 * LANE / loudest, WIDTH / COLUMNS
    high = [(i * step, middle - scale * float(part.max(initial=0))) for i, part in enumerate(columns)]
    low = [(i * step, middle - scale * float(part.min(initial=0))) for i, part in enumerate(columns)]
    return " ".join(f"{x:.0f},{y:.1f}" for x, y in [*high, *reversed(low)])


def _spectra(sides: dict[str, tuple[np.ndarray, int]], budget: Budget) -> tuple[tuple[str, Thumb], ...]:
    power = {name: _decibels(audio.mean(axis=0)) for name, (audio, _) in sides.items()}
    top = max(float(levels.max()) for levels in power.values())
    made = [(name.title(), _coloured((levels - top) / RANGE_DB + 1, budget)) for name, levels in power.items()]
    if len(power) == 2 and power["candidate"].shape == power["reference"].shape:
        floor = top - RANGE_DB
        apart = np.abs(power["candidate"].clip(floor) - power["reference"].clip(floor))
        made.append((f"Difference, white is {DIFFERENCE_DB:.0f} dB", _coloured(apart / DIFFERENCE_DB, budget)))
    return tuple(made)


def _decibels(mono_N: np.ndarray) -> np.ndarray:
    """Short-time power spectrum [K,T] in dB, high frequencies first."""
    hop = max(WINDOW // 4, len(mono_N) // SPECTRUM[0])
    padded = np.pad(mono_N, (WINDOW // 2, WINDOW))
    starts = np.arange(0, max(1, len(mono_N)), hop)
    frames_TN = padded[starts[:, None] + np.arange(WINDOW)] * np.hanning(WINDOW)
    power_TK = np.abs(np.fft.rfft(frames_TN)) ** 2
    return 10 * np.log10(power_TK.T[::-1] + 1e-12)


def _coloured(levels_KT: np.ndarray, budget: Budget) -> Thumb:
    image = Image.fromarray(cubehelix()[(255 * levels_KT.clip(0, 1)).astype(np.uint8)])
    return embed(image.resize(SPECTRUM, Image.Resampling.BILINEAR), budget)
