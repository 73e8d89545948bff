"""The battery: every damage does what its name says, the same every time, to a copy, and only where it can exist."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance.defects.samples import SAMPLE_DEFECTS
from conformance.generator import Sample

PIXELS, MOTION, SOUND, LATENTS = (
    [name for name, defect in SAMPLE_DEFECTS.items() if defect.kind == kind]
    for kind in ("pixels", "motion", "sound", "latents")
)


def sample(seed: int = 0, *, frames: int = 8, height: int = 80, width: int = 96, channels: int = 2) -> Sample:
    """Random pixels between 60 and 189, sound of 0.1 s at 16 kHz, a video and an audio stream of latents."""
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    return Sample(
        frames=rng.integers(60, 190, (2, frames, height, width, 3), dtype=np.uint8),
        frames_float=None,
        audio=(0.1 * rng.standard_normal((2, channels, 1600))).astype(np.float32),
        audio_rate=16000,
        latents={name: torch.randn(2, 32, 8, generator=generator) for name in ("video", "audio")},
    )


def without(base: Sample, **values: object) -> Sample:
    other = copy.copy(base)
    for name, value in values.items():
        setattr(other, name, value)
    return other


def same(a: Sample, b: Sample) -> dict[str, bool]:
    """Which parts of two samples agree bit for bit."""
    return {
        "frames": np.array_equal(a.frames, b.frames),
        "sound": a.audio is b.audio
        or (a.audio is not None and b.audio is not None and np.array_equal(a.audio, b.audio)),
        "latents": a.latents.keys() == b.latents.keys()
        and all(torch.equal(a.latents[name], b.latents[name]) for name in a.latents),
    }


def damaged(name: str, base: Sample) -> Sample:
    assert SAMPLE_DEFECTS[name].applies(base)
    return SAMPLE_DEFECTS[name].damage(base)


def test_the_battery_is_complete() -> None:
    assert [len(names) for names in (PIXELS, MOTION, SOUND, LATENTS)] == [17, 3, 5, 4]


@pytest.mark.parametrize("name", SAMPLE_DEFECTS)
def test_a_damage_is_a_copy_changes_its_own_part_and_repeats(name: str) -> None:
    base = sample()
    kept = copy.deepcopy(base)
    first, second = damaged(name, base), damaged(name, base)
    assert all(same(base, kept).values())
    assert all(same(first, second).values())
    part = {"pixels": "frames", "motion": "frames"}.get(SAMPLE_DEFECTS[name].kind, SAMPLE_DEFECTS[name].kind)
    assert {place for place, equal in same(first, base).items() if not equal} == {part}
    assert (first.frames.shape, first.frames.dtype) == (base.frames.shape, np.uint8)
    assert first.audio is not None
    assert base.audio is not None
    assert (first.audio.shape, first.audio.dtype) == (base.audio.shape, np.float32)
    for stream, value in first.latents.items():
        assert (value.shape, value.dtype) == (base.latents[stream].shape, torch.float32)


@pytest.mark.parametrize("name", SAMPLE_DEFECTS)
@settings(max_examples=12)
@given(
    seed=st.integers(0, 1000),
    frames=st.integers(1, 5),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    channels=st.integers(1, 2),
    flat=st.booleans(),
)
def test_what_applies_changes_something(
    name: str, seed: int, frames: int, height: int, width: int, channels: int, flat: bool
) -> None:
    base = sample(seed, frames=frames, height=height, width=width, channels=channels)
    if flat:
        base.frames[:], base.latents = 128, {stream: value * 0 for stream, value in base.latents.items()}
        base.audio = np.zeros_like(base.audio)
    if SAMPLE_DEFECTS[name].applies(base):
        assert not all(same(SAMPLE_DEFECTS[name].damage(base), base).values())


@pytest.mark.parametrize("name", SAMPLE_DEFECTS)
def test_nothing_to_damage(name: str) -> None:
    nothing = without(sample(), frames=np.zeros((1, 0, 8, 8, 3), np.uint8), audio=None, audio_rate=None, latents={})
    assert not SAMPLE_DEFECTS[name].applies(nothing)
    flat = sample()
    flat.frames[:] = 0
    flat.audio = np.zeros_like(flat.audio)
    flat.latents = {stream: torch.zeros_like(value) for stream, value in flat.latents.items()}
    visible = {
        "seam",
        "grid_rows_8",
        "grid_patch_16",
        "noise_2",
        "noise_4",
        "noise_12",
        "brighter_8",
        "bad_frame_middle",
    }
    assert SAMPLE_DEFECTS[name].applies(flat) == (name in visible)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("black_block_64", {"height": 64}),
        ("black_block_64", {"width": 64}),
        ("black_block_1_64th", {"height": 7}),
        ("seam", {"width": 15}),
        ("grid_rows_8", {"height": 15}),
        ("grid_patch_16", {"width": 31}),
        ("roll_half", {"height": 15}),
        ("bad_frame_middle", {"frames": 1}),
        ("frames_swapped", {"frames": 2}),
        ("frozen_tail", {"frames": 1}),
        ("audio_channels_swapped", {"channels": 1}),
    ],
)
def test_a_sample_too_small_for_a_damage(name: str, shape: dict[str, int]) -> None:
    assert SAMPLE_DEFECTS[name].applies(sample())
    assert not SAMPLE_DEFECTS[name].applies(sample(**shape))
    assert SAMPLE_DEFECTS[name].applies(sample(**{axis: size + 1 for axis, size in shape.items()}))


def test_short_sound_has_no_delay_or_dropout() -> None:
    base = sample()
    assert base.audio is not None
    for name, longest in (("audio_delay", 32), ("audio_dropout", 320)):
        assert not SAMPLE_DEFECTS[name].applies(without(base, audio=base.audio[..., :longest]))
        assert SAMPLE_DEFECTS[name].applies(without(base, audio=base.audio[..., : longest + 1]))


def test_blocks() -> None:
    base = sample(height=130, width=200)
    for name, (height, width) in {"black_block_64": (64, 64), "black_block_1_64th": (16, 25)}.items():
        black = (damaged(name, base).frames == 0).all(axis=-1)
        rows, columns = np.flatnonzero(black[0, 0].any(axis=1)), np.flatnonzero(black[0, 0].any(axis=0))
        assert (len(rows), len(columns)) == (height, width)
        assert (rows[0], columns[0]) == ((130 - height) // 2, (200 - width) // 2)
        assert (black.sum(axis=(2, 3)) == height * width).all()


def test_stripes_and_grids() -> None:
    base = sample()
    seam = damaged("seam", base).frames.astype(int) - base.frames
    assert (seam[..., 44:52, :] == 40).all()
    assert not seam[..., :44, :].any()
    assert not seam[..., 52:, :].any()
    rows = damaged("grid_rows_8", base).frames.astype(int) - base.frames
    assert (rows[:, :, ::8] == 12).all()
    assert rows.sum() == 12 * rows[:, :, ::8].size
    patch = damaged("grid_patch_16", base).frames.astype(int) - base.frames
    y, x = np.indices((80, 96))
    assert np.array_equal(patch[1, 7, :, :, 1], 12 * ((y % 16 == 0) | (x % 16 == 0)))


def test_moved_pixels() -> None:
    base = sample()
    shifted = damaged("shift_1px", base).frames
    assert np.array_equal(shifted[..., 1:, :], base.frames[..., :-1, :])
    assert np.array_equal(shifted[..., 0, :], base.frames[..., 0, :])
    rolled = damaged("roll_half", base).frames
    assert np.array_equal(rolled[..., :48, :], base.frames[..., :48, :])
    assert np.array_equal(rolled[:, :, 8:, 48:], base.frames[:, :, :-8, 48:])
    assert np.array_equal(rolled[:, :, :8, 48:], base.frames[:, :, -8:, 48:])
    assert np.array_equal(damaged("flipped", base).frames[..., 3, :], base.frames[..., -4, :])


def test_blur_is_a_gaussian_of_one_pixel() -> None:
    dot = sample(frames=1)
    dot.frames[:] = 0
    dot.frames[:, :, 40, 50] = 255
    blurred = damaged("blur_1", dot).frames[0, 0, 36:45, 46:55, 0].astype(float)
    y, x = np.indices((9, 9)) - 4
    gaussian = np.exp(-(y**2 + x**2) / 2)
    np.testing.assert_allclose(blurred, 255 * gaussian / gaussian.sum(), atol=0.6)


@pytest.mark.parametrize("sigma", [2, 4, 12])
def test_noise_has_its_spread(sigma: int) -> None:
    base = sample()
    difference = damaged(f"noise_{sigma}", base).frames.astype(float) - base.frames
    assert difference.std() == pytest.approx(sigma, rel=0.05)
    assert abs(difference.mean()) < 0.05 * sigma


def test_colours() -> None:
    base = sample()
    assert ((damaged("brighter_8", base).frames.astype(int) - base.frames) == 8).all()
    assert np.array_equal(damaged("red_blue_swapped", base).frames, base.frames[..., [2, 1, 0]])
    pixel = base.frames[1, 2, 3, 4].astype(float)
    luma = 0.299 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2]
    np.testing.assert_allclose(damaged("desaturated", base).frames[1, 2, 3, 4], (pixel + luma) / 2, atol=0.501)
    flat = damaged("constant", base).frames
    assert (flat == flat[:, :, :1, :1]).all()
    np.testing.assert_allclose(flat[0, 3, 0, 0], base.frames[0, 3].mean(axis=(0, 1)), atol=0.501)


def test_jpeg_loses_detail_not_the_picture() -> None:
    y, x = np.mgrid[:80, :96]
    base = sample(frames=1)
    base.frames[:] = np.stack([2 * y, 2 * x, y + x], axis=-1)
    difference = np.abs(damaged("jpeg_75", base).frames.astype(int) - base.frames)
    assert 0 < difference.mean() < 4


def test_damage_in_time() -> None:
    base = sample(frames=9)
    changed = [
        f for f in range(9) if not np.array_equal(damaged("bad_frame_middle", base).frames[:, f], base.frames[:, f])
    ]
    assert changed == [4]
    assert np.array_equal(damaged("frames_swapped", base).frames, base.frames[:, [0, 1, 2, 3, 5, 4, 6, 7, 8]])
    assert np.array_equal(damaged("frozen_tail", base).frames, base.frames[:, [0, 1, 2, 3, 4, 5, 6, 6, 6]])


@pytest.mark.parametrize("name", MOTION)
@pytest.mark.parametrize("frames", [2, 3, 4, 17])
def test_damage_in_time_spares_the_first_frame(name: str, frames: int) -> None:
    base = sample(frames=frames, height=8, width=8)
    if SAMPLE_DEFECTS[name].applies(base):
        assert np.array_equal(SAMPLE_DEFECTS[name].damage(base).frames[:, 0], base.frames[:, 0])


def test_sound() -> None:
    base = sample()
    wave = base.audio
    assert wave is not None
    found = {name: damaged(name, base).audio for name in SOUND}
    np.testing.assert_allclose(found["audio_gain"], wave * 10**0.05, rtol=1e-6)
    assert not found["audio_delay"][..., :16].any()
    assert np.array_equal(found["audio_delay"][..., 16:], wave[..., :-16])
    assert np.array_equal(found["audio_channels_swapped"], wave[:, [1, 0]])
    silent = np.flatnonzero((found["audio_dropout"] == 0).all(axis=(0, 1)))
    assert (silent[0], silent[-1], len(silent)) == (720, 879, 160)
    clipped = found["audio_clipped"]
    assert np.array_equal(np.abs(clipped).max(axis=-1), np.abs(wave).max(axis=-1) / 2)
    inside = np.abs(wave) <= np.abs(clipped).max(axis=-1, keepdims=True)
    assert np.array_equal(clipped[inside], wave[inside])
    assert (np.sign(clipped) == np.sign(wave)).all()


def test_latents() -> None:
    base = sample()
    for stream, value in base.latents.items():
        found = {name: damaged(name, base).latents[stream] for name in LATENTS}
        assert torch.nonzero((found["latent_channel_bad"] == 0).all(dim=1)).tolist() == [[0, 4], [1, 4]]
        assert torch.nonzero((found["latent_tokens_bad"] == 0).all(dim=2)).tolist() == [
            [0, 15],
            [0, 16],
            [1, 15],
            [1, 16],
        ]
        torch.testing.assert_close(found["latents_scaled_1_01"], value * 1.01)
        assert torch.equal(found["latents_bf16"], value.to(torch.bfloat16).float())


def test_rounding_what_is_bf16_already_is_no_damage() -> None:
    base = sample()
    rounded = without(base, latents={name: value.bfloat16() for name, value in base.latents.items()})
    assert not SAMPLE_DEFECTS["latents_bf16"].applies(rounded)
    assert damaged("latents_scaled_1_01", rounded).latents["video"].dtype == torch.bfloat16
    unpacked = without(base, latents={"video": torch.ones(2, 8)})
    assert not any(SAMPLE_DEFECTS[name].applies(unpacked) for name in LATENTS)
