"""Frame metrics against definitions written out here, loop by loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from conformance.errors import InputError
from conformance.metrics import REGISTRY, FramePair, Metric, register
from conformance.metrics.pairs import tile_means

LEVELS = ["ssim", "psnr", "mean_abs_diff", "tile_ssim", "tile_mean_abs_diff", "p999_abs_diff", "max_abs_diff"]
SIZES = [(7, 7), (7, 40), (33, 31), (64, 70)]


def image(seed: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def noisy(frame: np.ndarray, sigma: float, seed: int = 9) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, sigma, frame.shape)
    return np.clip(np.round(frame + noise), 0, 255).astype(np.uint8)


def value(name: str, a: np.ndarray, b: np.ndarray) -> float:
    return REGISTRY[name].function(FramePair(a, b))


def ssim_map(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """SSIM of every 7x7 window that lies inside the image, from the formula; mean over channels."""
    height, width, _ = a.shape
    out = np.zeros((height - 6, width - 6))
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    for y in range(height - 6):
        for x in range(width - 6):
            for c in range(3):
                p = a[y : y + 7, x : x + 7, c].astype(float).ravel()
                q = b[y : y + 7, x : x + 7, c].astype(float).ravel()
                covariance = ((p - p.mean()) * (q - q.mean())).sum() / 48
                top = (2 * p.mean() * q.mean() + c1) * (2 * covariance + c2)
                out[y, x] += top / ((p.mean() ** 2 + q.mean() ** 2 + c1) * (p.var(ddof=1) + q.var(ddof=1) + c2)) / 3
    return out


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_ssim_and_psnr_are_scikit_images(height: int, width: int) -> None:
    a = image(1, height, width)
    b = noisy(a, 12)
    expected = structural_similarity(a, b, channel_axis=-1, data_range=255)
    assert value("ssim", a, b) == pytest.approx(expected, abs=1e-9)
    assert value("psnr", a, b) == pytest.approx(peak_signal_noise_ratio(b, a, data_range=255), abs=1e-9)


@pytest.mark.parametrize(("height", "width"), [(7, 7), (9, 41), (40, 38)])
def test_ssim_by_its_formula(height: int, width: int) -> None:
    a = image(2, height, width)
    b = noisy(a, 20)
    expected = ssim_map(a, b)
    tiles = [expected[y : y + 32, x : x + 32].mean() for y in range(0, height - 6, 32) for x in range(0, width - 6, 32)]
    assert value("ssim", a, b) == pytest.approx(expected.mean(), abs=1e-9)
    assert value("tile_ssim", a, b) == pytest.approx(min(tiles), abs=1e-9)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 50), (33, 31), (64, 65)])
def test_differences_by_their_formulas(height: int, width: int) -> None:
    a, b = image(3, height, width), image(4, height, width)
    difference = [abs(int(x) - int(y)) for x, y in zip(a.ravel(), b.ravel(), strict=True)]
    squares = sum(d * d for d in difference) / len(difference)
    tiles = []
    for y in range(0, height, 32):
        for x in range(0, width, 32):
            tile = np.array(difference).reshape(height, width, 3)[y : y + 32, x : x + 32]
            tiles.append(tile.sum() / tile.size)
    ranked = sorted(difference)
    assert value("mean_abs_diff", a, b) == pytest.approx(sum(difference) / len(difference), rel=1e-12)
    assert value("max_abs_diff", a, b) == max(difference)
    assert value("tile_mean_abs_diff", a, b) == pytest.approx(max(tiles), rel=1e-12)
    assert value("psnr", a, b) == pytest.approx(10 * math.log10(255**2 / squares), rel=1e-12)
    assert value("p999_abs_diff", a, b) == ranked[math.ceil(0.999 * len(ranked)) - 1]


def test_known_values() -> None:
    black, white = np.zeros((64, 64, 3), np.uint8), np.full((64, 64, 3), 255, np.uint8)
    assert value("mean_abs_diff", black, white) == 255.0
    assert value("psnr", black, white) == 0.0
    corner = black.copy()
    corner[:32, :32] = 40
    assert value("mean_abs_diff", corner, black) == 10.0
    assert value("tile_mean_abs_diff", corner, black) == 40.0
    one = black.copy()
    one[5, 6, 1] = 200
    assert value("max_abs_diff", one, black) == 200.0
    assert value("p999_abs_diff", one, black) == 0.0


@pytest.mark.parametrize(("height", "width"), [(6, 7), (7, 6), (1, 1), (1, 64)])
@pytest.mark.parametrize("name", ["ssim", "tile_ssim"])
def test_ssim_needs_seven_pixels(name: str, height: int, width: int) -> None:
    with pytest.raises(InputError, match=f"{height}x{width}; expected at least 7x7"):
        value(name, image(0, height, width), image(1, height, width))


def test_tile_means_cover_partial_edges() -> None:
    values = image(5, 5, 7)
    expected = [[values[y : y + 3, x : x + 3].mean() for x in (0, 3, 6)] for y in (0, 3)]
    np.testing.assert_allclose(tile_means(values, 3), expected, rtol=1e-15)


def test_a_local_defect_shows_in_the_worst_tile() -> None:
    reference = noisy(np.full((128, 128, 3), 120, np.uint8), 10)
    candidate = reference.copy()
    candidate[96:, 96:] = 0
    assert value("ssim", candidate, reference) > 0.9
    assert value("tile_ssim", candidate, reference) < 0.1
    assert value("mean_abs_diff", candidate, reference) < 8
    assert value("tile_mean_abs_diff", candidate, reference) > 100


@pytest.mark.parametrize("name", LEVELS)
@settings(max_examples=12)
@given(seed=st.integers(0, 10**6), height=st.integers(7, 40), width=st.integers(7, 40))
def test_identity_and_symmetry(name: str, seed: int, height: int, width: int) -> None:
    a, b = image(seed, height, width), image(seed + 1, height, width)
    perfect = {"psnr": math.inf}.get(name, 1.0 if REGISTRY[name].better == "higher" else 0.0)
    assert value(name, a, a) == pytest.approx(perfect, abs=1e-12)
    assert value(name, a, b) == pytest.approx(value(name, b, a), rel=1e-9)
    assert REGISTRY[name].worst([value(name, a, a), value(name, a, b)]) == 1


@pytest.mark.parametrize("name", LEVELS)
@settings(max_examples=12)
@given(seed=st.integers(0, 10**6), scale=st.integers(1, 5))
def test_a_larger_difference_is_worse(name: str, seed: int, scale: int) -> None:
    rng = np.random.default_rng(seed)
    base = np.full((24, 24, 3), 128, np.int16)
    difference = rng.integers(-10, 11, base.shape)
    difference[0, 0, 0] = 10
    small, large = ((base + factor * difference).astype(np.uint8) for factor in (scale, scale + 1))
    reference = base.astype(np.uint8)
    metric = REGISTRY[name]
    near, far = value(name, small, reference), value(name, large, reference)
    assert far < near if metric.better == "higher" else far > near


def test_worst_and_limits() -> None:
    higher, lower = REGISTRY["ssim"], REGISTRY["mean_abs_diff"]
    assert higher.worst([0.9, 0.2, 0.5]) == 1
    assert lower.worst([0.9, 0.2, 5.0]) == 2
    assert higher.worst([0.9, math.nan, 0.1]) == 1
    assert lower.worst([0.9, math.nan, 7.0]) == 1
    assert higher.holds(0.95, 0.95)
    assert lower.holds(3.0, 3.0)
    assert not higher.holds(np.nextafter(0.95, 0), 0.95)
    assert not lower.holds(np.nextafter(3.0, 4), 3.0)
    assert not higher.holds(math.nan, 0.0)
    assert not lower.holds(math.nan, 1e9)


def test_every_metric_is_described_and_registered_once() -> None:
    assert list(REGISTRY)[:4] == ["clip", "ssim", "psnr", "mean_abs_diff"]
    for name, metric in REGISTRY.items():
        assert isinstance(metric, Metric)
        assert metric.doc
        prefix = {"frame": "", "motion": "", "latent": "latents.", "audio": "audio.", "stereo": "audio."}
        assert name.startswith(prefix[metric.kind])
    with pytest.raises(ValueError, match="registered twice"):
        register("ssim", kind="frame", better="higher")(lambda pair: 0.0)
