"""Metrics of structure in a frame's difference, against definitions written out here, value by value."""

from __future__ import annotations

import cmath
import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from conformance.errors import InputError
from conformance.metrics import REGISTRY, FramePair

LOCAL = ["grid_8", "grid_16", "grid_32", "seam_step", "blockiness", "edge_energy_db", "quiet_noise_db", "shift_px"]
LOCAL += ["colour_mean", "colour_spread"]


def image(seed: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def picture(seed: int, height: int = 96, width: int = 128) -> np.ndarray:
    """Smooth shapes with a little grain, between 40 and 215."""
    rng = np.random.default_rng(seed)
    smooth = gaussian_filter(rng.standard_normal((height, width, 3)), (6, 6, 0))
    smooth *= 50 / np.abs(smooth).max()
    return np.clip(np.rint(128 + smooth + rng.normal(0, 1, smooth.shape)), 40, 215).astype(np.uint8)


def noisy(frame: np.ndarray, sigma: float, seed: int = 9) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(frame.shape)
    return np.clip(np.rint(frame + sigma * noise), 0, 255).astype(np.uint8)


def value(name: str, a: np.ndarray, b: np.ndarray) -> float:
    return REGISTRY[name].function(FramePair(a, b))


def grid_amplitude(profiles: list[list[float]], period: int) -> float:
    """profiles: one a colour. Every bin of the discrete Fourier transform by its sum."""
    length = len(profiles[0]) // period * period
    apart = length // period

    def power(k: int) -> float:
        total = 0.0
        for profile in profiles:
            total += abs(sum(profile[n] * cmath.exp(-2j * math.pi * k * n / length) for n in range(length))) ** 2 / 3
        return total / length**2 * (1 if k == 0 or 2 * k == length else 2)

    excess = 0.0
    for k in range(apart, length // 2 + 1, apart):
        beside = [k + d for d in range(-min(4, apart - 1), min(4, apart - 1) + 1) if d and 1 <= k + d <= length // 2]
        excess += max(0.0, power(k) - sum(power(b) for b in beside) / len(beside))
    return math.sqrt(excess)


@pytest.mark.parametrize(("height", "width"), [(16, 20), (40, 70), (67, 9), (64, 96)])
@pytest.mark.parametrize("period", [8, 16, 32])
def test_grid_by_its_formula(height: int, width: int, period: int) -> None:
    a, b = image(1, height, width), image(2, height, width)
    if max(height, width) < 2 * period:
        with pytest.raises(
            InputError, match=f"grid_{period}: a frame is {height}x{width}; expected a side of at least"
        ):
            value(f"grid_{period}", a, b)
        return
    difference = a.astype(float) - b
    found = []
    for axis in (0, 1):
        if (height, width)[axis] >= 2 * period:
            profile = difference.mean(axis=1 - axis)
            found.append(grid_amplitude([list(profile[:, c]) for c in range(3)], period))
    assert value(f"grid_{period}", a, b) == pytest.approx(max(found), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("period", [8, 16, 32])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_grid_has_its_amplitude_at_its_period_and_at_multiples(period: int, axis: int) -> None:
    base = picture(3, 128, 192)
    lines = base.swapaxes(0, axis).copy()
    lines[3::period] += 12
    candidate = np.ascontiguousarray(lines.swapaxes(0, axis))
    expected = 12 * math.sqrt(1 / period - 1 / period**2)
    for other in (8, 16, 32):
        found = value(f"grid_{other}", candidate, base)
        assert found == pytest.approx(expected if other >= period else found, rel=1e-3)
    assert value(f"grid_{period}", noisy(base, 12), base) < 0.1 * expected


def jumps(a: np.ndarray, b: np.ndarray) -> float:
    worst = 0.0
    height, width, _ = a.shape
    d = a.astype(int) - b
    for c in range(3):
        for y in range(1, height):
            cut = [max(-16, min(16, d[y, x, c] - d[y - 1, x, c])) for x in range(width)]
            worst = max(worst, abs(sum(cut)) / width)
        for x in range(1, width):
            cut = [max(-16, min(16, d[y, x, c] - d[y, x - 1, c])) for y in range(height)]
            worst = max(worst, abs(sum(cut)) / height)
    return worst


@pytest.mark.parametrize(("height", "width"), [(2, 1), (1, 2), (5, 9), (17, 12)])
def test_seam_by_its_formula(height: int, width: int) -> None:
    a, b = image(1, height, width), image(2, height, width)
    assert value("seam_step", a, b) == pytest.approx(jumps(a, b), rel=1e-12)


def test_a_seam_is_its_jump_and_content_is_not() -> None:
    base = picture(4)
    stripe = base.copy()
    stripe[:, 60:68] += 12
    assert value("seam_step", stripe, base) == 12
    block = base.copy()
    block[20:40, 30:60] = 0
    assert value("seam_step", block, base) < 5
    assert value("mean_abs_diff", block, base) > value("mean_abs_diff", stripe, base)


def phases(frame: np.ndarray, axis: int) -> list[float]:
    lines = frame.swapaxes(0, axis).astype(int)
    mean_steps = [np.minimum(np.abs(lines[i + 1] - lines[i]), 16).mean() for i in range(len(lines) - 1)]
    blocks = [mean_steps[i : i + 8] for i in range(0, len(mean_steps) - 7, 8)]
    return [statistics.median(block[p] / max(sum(block) / 8, 0.05) for block in blocks) for p in range(8)]


@pytest.mark.parametrize(("height", "width"), [(9, 3), (3, 9), (20, 33), (64, 40)])
def test_blockiness_by_its_formula(height: int, width: int) -> None:
    a, b = picture(1, height, width), noisy(picture(1, height, width), 3)
    expected = max(
        abs(p - q)
        for axis in (0, 1)
        if (height, width)[axis] > 8
        for p, q in zip(phases(a, axis), phases(b, axis), strict=True)
    )
    assert value("blockiness", a, b) == pytest.approx(expected, rel=1e-9)


def squares(frame: np.ndarray, tile: int | None) -> list[list[int]]:
    """Squared steps down and to the right, in tiles of ``tile`` pixels or all in one."""
    height, width, _ = frame.shape
    tiles: dict[tuple[int, int, int], list[int]] = {}
    for y in range(height):
        for x in range(width):
            for c in range(3):
                at = (0, 0) if tile is None else (y // tile, x // tile)
                if y + 1 < height:
                    tiles.setdefault((0, *at), []).append((int(frame[y + 1, x, c]) - int(frame[y, x, c])) ** 2)
                if x + 1 < width:
                    tiles.setdefault((1, *at), []).append((int(frame[y, x + 1, c]) - int(frame[y, x, c])) ** 2)
    return list(tiles.values())


@pytest.mark.parametrize(("height", "width"), [(1, 2), (2, 1), (16, 17), (66, 97)])
def test_edge_energies_by_their_formulas(height: int, width: int) -> None:
    a, b = picture(1, height, width), noisy(picture(1, height, width), 3)
    whole = [sum(sum(part) for part in squares(side, None)) for side in (a, b)]
    assert value("edge_energy_db", a, b) == pytest.approx(abs(10 * math.log10(whole[0] / whole[1])), rel=1e-9)
    quiet = []
    for side in (a, b):
        means = sorted(sum(part) / len(part) for part in squares(side, 16))
        quiet.append(means[len(means) // 10] + 1 / 6)
    assert value("quiet_noise_db", a, b) == pytest.approx(
        abs(10 * math.log10(quiet[0] / quiet[1])), rel=1e-9, abs=1e-12
    )


def test_edges_without_energy() -> None:
    flat, other = np.full((8, 8, 3), 9, np.uint8), image(1, 8, 8)
    assert value("edge_energy_db", flat, flat + np.uint8(1)) == 0
    assert value("edge_energy_db", flat, other) == value("edge_energy_db", other, flat) == math.inf
    assert value("edge_energy_db", image(1, 1, 1), image(2, 1, 1)) == 0


def test_weak_noise_shows_in_the_quiet_tiles() -> None:
    base = np.clip(picture(5), 60, 200)
    base[:, 64:] = image(6, 96, 64)  # half of the frame is all texture
    candidate = noisy(base, 2)
    assert value("edge_energy_db", candidate, base) < 0.1
    assert value("quiet_noise_db", candidate, base) > 3


def phase_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Direct transforms in complex128, no symmetry used."""
    height, width, _ = a.shape
    rows, columns = (
        np.array([[cmath.exp(-2j * math.pi * k * n / size) for n in range(size)] for k in range(size)])
        for size in (height, width)
    )
    window = np.outer(*([math.sin(math.pi * (n + 0.5) / size) ** 2 for n in range(size)] for size in (height, width)))
    spectra = []
    for side in (a, b):
        grey = side.astype(float).sum(axis=-1)
        spectra.append(rows @ ((grey - grey.mean()) * window) @ columns)
    cross = spectra[0] * np.conj(spectra[1])
    surface = (np.conj(rows) @ (cross / np.abs(cross)) @ np.conj(columns)).real / (height * width)
    y, x = divmod(int(surface.argmax()), width)
    at = []
    for place, size, line in ((y, height, surface[:, x]), (x, width, surface[y])):
        before, peak, after = line[place - 1], line[place], line[(place + 1) % size]
        place = place if place <= size / 2 else place - size
        at.append(place + (after - before) / (2 * (2 * peak - before - after)))
    return math.hypot(*at)


@pytest.mark.parametrize(("dy", "dx"), [(0, 0), (1, 0), (-2, 3), (0, -5)])
def test_shift_by_its_formula(dy: int, dx: int) -> None:
    base = image(7, 30, 36)
    moved = noisy(np.roll(base, (dy, dx), axis=(0, 1)), 4)
    assert value("shift_px", moved, base) == pytest.approx(phase_correlation(moved, base), abs=2e-3)
    assert value("shift_px", moved, base) == pytest.approx(math.hypot(dy, dx), abs=0.05)


def test_shift_of_a_part_of_a_pixel_and_of_what_has_no_place() -> None:
    base = gaussian_filter(np.random.default_rng(8).standard_normal((96, 128)), 3)
    fine = np.stack([100 + 900 * base] * 3, axis=-1)
    half = (fine + np.roll(fine, 1, axis=1)) / 2
    a, b = (np.clip(np.rint(side), 0, 255).astype(np.uint8) for side in (half, fine))
    assert 0.2 < value("shift_px", a, b) < 0.8
    flat = np.full((16, 16, 3), 9, np.uint8)
    assert value("shift_px", flat, image(1, 16, 16)) == value("shift_px", flat + np.uint8(1), flat) == 0


@pytest.mark.parametrize("frame", [image(1, 1, 1), image(2, 7, 5), picture(3, 20, 30)])
def test_colours_by_their_formulas(frame: np.ndarray) -> None:
    other = noisy(frame, 20)[..., [1, 2, 0]]
    means, spreads = [], []
    for axis in (lambda r, g, b: (r + g + b) / 3, lambda r, g, b: (r - b) / 2, lambda r, g, b: (2 * g - r - b) / 4):
        sides = [[axis(*map(float, pixel)) for pixel in side.reshape(-1, 3)] for side in (frame, other)]
        means.append(abs(statistics.fmean(sides[0]) - statistics.fmean(sides[1])))
        spreads.append(abs(statistics.pstdev(sides[0]) - statistics.pstdev(sides[1])))
    assert value("colour_mean", frame, other) == pytest.approx(max(means), rel=1e-9)
    assert value("colour_spread", frame, other) == pytest.approx(max(spreads), rel=1e-9, abs=1e-9)


def test_colour_of_known_damage() -> None:
    base = picture(6)
    assert value("colour_mean", base + np.uint8(8), base) == pytest.approx(8, abs=1e-9)
    assert value("colour_spread", base + np.uint8(8), base) == pytest.approx(0, abs=1e-9)
    red = np.clip(base + np.array([30, 0, -30]), 0, 255).astype(np.uint8)
    assert value("colour_mean", red[..., ::-1], red) > 50
    grey = np.rint((base + base.mean(axis=-1, keepdims=True)) / 2).astype(np.uint8)
    assert value("colour_spread", grey, base) > 2


def test_no_overflow_at_the_extremes() -> None:
    checks = np.zeros((128, 128, 3), np.uint8)
    checks[::2, ::2] = checks[1::2, 1::2] = 255
    inverse = 255 - checks
    assert value("edge_energy_db", checks, inverse) == 0
    assert value("quiet_noise_db", checks, inverse) == 0
    assert value("colour_spread", checks, np.zeros_like(checks)) == pytest.approx(127.5)
    assert value("seam_step", checks, np.zeros_like(checks)) == 0
    assert value("colour_mean", np.full_like(checks, 255), np.zeros_like(checks)) == 255
    tall = np.full((9000, 2, 3), 255, np.uint8)
    tall[::2] = 0
    assert value("colour_spread", tall, np.zeros_like(tall)) == pytest.approx(127.5)
    assert value("colour_mean", tall, np.zeros_like(tall)) == pytest.approx(127.5)


@pytest.mark.parametrize("name", ["seam_step", "quiet_noise_db", "blockiness"])
def test_frames_too_small(name: str) -> None:
    with pytest.raises(InputError, match=f"{name}: a frame is 1x1; expected"):
        value(name, image(0, 1, 1), image(0, 1, 1))


@pytest.mark.parametrize("name", LOCAL)
@settings(max_examples=12)
@given(seed=st.integers(0, 10**6), height=st.integers(2, 70), width=st.integers(64, 80))
def test_identity_and_symmetry(name: str, seed: int, height: int, width: int) -> None:
    a, b = image(seed, height, width), image(seed + 1, height, width)
    near = noisy(a, 5)
    assert value(name, a, a.copy()) == 0
    assert value(name, a, b) >= 0
    rough = 1e-2 if name == "shift_px" else 1e-9  # single precision
    assert value(name, a, near) == pytest.approx(value(name, near, a), rel=rough, abs=rough)


def damaged(name: str, base: np.ndarray, strength: int) -> np.ndarray:
    """The damage that a metric is for."""
    frame = base.astype(float)
    if name.startswith("grid_"):
        frame[:: int(name[5:])] += 4 * strength
    elif name == "seam_step":
        frame[:, 50:58] += 4 * strength
    elif name == "blockiness":
        frame[::8] += 2 * strength
    elif name == "edge_energy_db":
        frame = gaussian_filter(frame, (strength, strength, 0))
    elif name == "quiet_noise_db":
        frame = noisy(base, 2 * strength).astype(float)
    elif name == "shift_px":
        frame = np.roll(frame, 3 * strength, axis=1)
    elif name == "colour_mean":
        frame += 6 * strength
    else:
        frame += (frame.mean(axis=-1, keepdims=True) - frame) * strength / 4
    return np.clip(np.rint(frame), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", LOCAL)
@settings(max_examples=8)
@given(seed=st.integers(0, 10**6), strength=st.integers(1, 3))
def test_more_damage_is_worse(name: str, seed: int, strength: int) -> None:
    base = picture(seed)
    near, far = (value(name, damaged(name, base, each), base) for each in (strength, strength + 1))
    assert 0 < near < far
