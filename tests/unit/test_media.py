"""Images and audio: what is read bit for bit, and what is refused."""

from __future__ import annotations

import io
import struct
import wave
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conformance.errors import InputError
from conformance.media import heat_map, read_image, write_png, write_wav


def pixels(height: int = 9, width: int = 11) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def refused(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_image(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize(("height", "width"), [(9, 11), (1, 1), (1, 40)])
def test_png_round_trip(tmp_path: Path, height: int, width: int) -> None:
    image = pixels(height, width)
    write_png(tmp_path / "deep" / "a.png", image)
    assert np.array_equal(read_image(tmp_path / "deep" / "a.png"), image)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.png"]


def test_other_formats(tmp_path: Path) -> None:
    image = Image.fromarray(pixels())
    image.save(tmp_path / "a.webp", lossless=True)
    assert np.array_equal(read_image(tmp_path / "a.webp"), pixels())
    image.save(tmp_path / "a.jpg", quality=90)
    assert read_image(tmp_path / "a.jpg").shape == (9, 11, 3)
    palette = image.quantize(8)
    palette.save(tmp_path / "p.png")
    assert np.array_equal(read_image(tmp_path / "p.png"), np.array(palette.convert("RGB")))


def rgb16_png() -> bytes:
    """A 16-bit RGB PNG, 2x2, chunk by chunk (Pillow writes none)."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b"".join(b"\0" + bytes(range(12)) for _ in range(2))
    header = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("RGBA", "transparent (mode RGBA)"),
        ("LA", "transparent (mode LA)"),
        ("L", "greyscale (mode L)"),
        ("1", "greyscale (mode 1)"),
        ("I;16", "16-bit (mode I;16)"),
    ],
)
def test_other_modes_are_refused(tmp_path: Path, mode: str, words: str) -> None:
    Image.new(mode, (4, 4)).save(tmp_path / "a.png")
    assert refused(tmp_path / "a.png").endswith(f"image is {words}; expected 8-bit RGB")


def test_16_bit_rgb_cmyk_and_transparency_chunks_are_refused(tmp_path: Path) -> None:
    (tmp_path / "deep.png").write_bytes(rgb16_png())
    assert "16-bit" in refused(tmp_path / "deep.png")
    Image.new("CMYK", (4, 4)).save(tmp_path / "a.jpg")
    assert "mode CMYK" in refused(tmp_path / "a.jpg")
    Image.new("RGB", (4, 4)).save(tmp_path / "t.png", transparency=(0, 0, 0))
    assert "transparent (mode RGB)" in refused(tmp_path / "t.png")
    Image.new("P", (4, 4)).save(tmp_path / "p.png", transparency=0)
    assert "transparent (mode P)" in refused(tmp_path / "p.png")


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_animations_are_refused(tmp_path: Path, suffix: str) -> None:
    frames = [Image.fromarray(pixels() // n) for n in (1, 2, 3)]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:])
    assert "animated (3 frames)" in refused(tmp_path / f"a.{suffix}")


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
@pytest.mark.parametrize("keep", [0.0, 0.02, 0.5, 0.9])
def test_truncated_files_are_refused(tmp_path: Path, suffix: str, keep: float) -> None:
    buffer = io.BytesIO()
    Image.fromarray(pixels(64, 64)).save(buffer, format="JPEG" if suffix == "jpg" else suffix)
    data = buffer.getvalue()
    (tmp_path / f"a.{suffix}").write_bytes(data[: int(keep * len(data))])
    refused(tmp_path / f"a.{suffix}")


def test_every_flipped_byte_of_a_png_is_found_or_harmless(tmp_path: Path) -> None:
    image = pixels(4, 4)
    write_png(tmp_path / "a.png", image)
    data = (tmp_path / "a.png").read_bytes()
    found = 0
    for place in range(len(data)):
        (tmp_path / "b.png").write_bytes(data[:place] + bytes([data[place] ^ 0x40]) + data[place + 1 :])
        try:
            assert np.array_equal(read_image(tmp_path / "b.png"), image), f"byte {place}"
        except InputError:
            found += 1
    assert found > 0.9 * len(data)


def test_what_is_not_an_image_is_refused(tmp_path: Path) -> None:
    assert "No such file" in refused(tmp_path / "missing.png")
    assert "cannot be read" in refused(tmp_path)
    (tmp_path / "a.png").write_text("<html>")
    assert "not a PNG, JPEG or WebP image" in refused(tmp_path / "a.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "a.gif")
    assert "not a PNG, JPEG or WebP image" in refused(tmp_path / "a.gif")


@pytest.mark.parametrize("limit", [10, 15])
def test_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    write_png(tmp_path / "a.png", pixels(4, 5))  # above the limit, and above twice the limit, are two paths in Pillow
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit - 1)
    assert "too large" in refused(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    assert read_image(tmp_path / "a.png").shape == (4, 5, 3)


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3))])
def test_write_png_takes_only_rgb_bytes(tmp_path: Path, image: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expected uint8 \[H,W,3\]"):
        write_png(tmp_path / "a.png", image)


def test_heat_map_scale() -> None:
    a = np.full((1, 256, 3), 0, np.uint8)
    b = a.copy()
    b[0] = np.arange(256, dtype=np.uint8)[:, None]
    heat = heat_map(a, b)[0].astype(float)
    assert heat.shape == (256, 3)
    assert tuple(heat[0]) == (0, 0, 0)
    assert (heat[64:] == 255).all()
    brightness = heat @ [0.30, 0.59, 0.11]
    assert (np.diff(brightness[:65]) > 0).all()
    assert np.array_equal(heat_map(a, b), heat_map(b, a))


def test_heat_map_averages_channels_and_shows_one_level() -> None:
    a = pixels(8, 8) // 2
    b = a.copy()
    b[3, 4, 1] += 1
    heat = heat_map(a, b)
    assert heat[3, 4].any()
    assert np.count_nonzero(heat.any(axis=-1)) == 1
    red, grey = np.zeros((2, 1, 1, 3), np.uint8)
    red[..., 0], grey[...] = 60, 20
    zero = np.zeros((1, 1, 3), np.uint8)
    assert np.array_equal(heat_map(red, zero), heat_map(grey, zero))
    with pytest.raises(ValueError, match="expected equal shapes"):
        heat_map(a, a[:4])


def test_wav(tmp_path: Path) -> None:
    audio = np.array([[0.0, 0.5, 1.0, 2.0], [-0.25, -0.5, -1.0, -2.0]], np.float32)
    write_wav(tmp_path / "a.wav", audio, 24000)
    with wave.open(str(tmp_path / "a.wav")) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate(), file.getnframes()) == (2, 2, 24000, 4)
        data = np.frombuffer(file.readframes(4), "<i2").reshape(4, 2).T
    assert data.tolist() == [[0, 16384, 32767, 32767], [-8192, -16384, -32767, -32767]]
    for bad in (audio[0], np.full((1, 4), np.nan, np.float32)):
        with pytest.raises(ValueError, match=r"expected finite \[C,N\]"):
            write_wav(tmp_path / "b.wav", bad, 24000)
