"""Pictures that a user gives: what is decoded, what is refused, and how they become part of a case."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from conformance import cli, pictures
from conformance.case import ImageCondition
from conformance.errors import InputError
from conformance.inputs import read_picture
from conformance.matrix import all_cases
from conformance.overrides import depart, origin
from conformance.pictures import decode, name_of, read, take

CASES = {case.id: case for case in all_cases()}
IMAGED = [case for case in CASES.values() if case.request.image is not None]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONFORMANCE_CACHE", str(tmp_path / "cache"))


def pixels(height: int = 24, width: int = 36, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path: Path, image: Image.Image | None = None, **options: Any) -> Path:
    (Image.fromarray(pixels()) if image is None else image).save(path, **options)
    return path


def profile(gamma_shift: bool = False) -> bytes:
    """sRGB, or Lab, which no RGB pixels are in."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB" if gamma_shift else "sRGB")).tobytes()


def test_a_png_is_kept_bit_for_bit_and_read_back(tmp_path: Path) -> None:
    given = take(str(save(tmp_path / "a.png")), "--image")
    assert (given.height, given.width) == (24, 36)
    assert given.name == name_of(pixels())
    assert np.array_equal(read(given.name), pixels())
    image = ImageCondition(picture=given.name, height=24, width=36, crf=0, strength=1.0)
    assert np.array_equal(read_picture(image), pixels())
    assert take(given.name, "--image") == given


def test_the_name_is_of_what_was_decoded_not_of_the_file(tmp_path: Path) -> None:
    first = take(str(save(tmp_path / "a.png", compress_level=0)), "--image")
    (tmp_path / "elsewhere").mkdir()
    assert take(str(save(tmp_path / "elsewhere" / "b.webp", lossless=True)), "--image") == first
    assert take(str(save(tmp_path / "c.png", Image.fromarray(pixels(seed=1)))), "--image") != first
    assert name_of(np.zeros((2, 6, 3), np.uint8)) != name_of(np.zeros((6, 2, 3), np.uint8))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_its_exif_says(orientation: int, tmp_path: Path) -> None:
    shown = pixels()
    stored: Callable[[np.ndarray], np.ndarray] = {
        1: lambda x: x,
        2: lambda x: x[:, ::-1],
        3: lambda x: x[::-1, ::-1],
        4: lambda x: x[::-1],
        5: lambda x: x.swapaxes(0, 1),
        6: lambda x: x.swapaxes(0, 1)[::-1],
        7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
        8: lambda x: x.swapaxes(0, 1)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "a.png", Image.fromarray(np.ascontiguousarray(stored(shown))), exif=exif)
    assert np.array_equal(decode(path, "--image"), shown)


def test_colours_go_to_srgb(tmp_path: Path) -> None:
    plain = decode(save(tmp_path / "a.png"), "--image").astype(int)
    same = decode(save(tmp_path / "b.png", icc_profile=profile()), "--image").astype(int)
    assert np.abs(plain - same).max() <= 1  # sRGB to sRGB
    swapped = decode(save(tmp_path / "c.png", icc_profile=_swapped_primaries()), "--image").astype(int)
    assert np.abs(plain[..., ::-1] - swapped).max() <= 2


def _swapped_primaries() -> bytes:
    """An sRGB profile whose red and blue tags have changed places: it shows blue where sRGB shows red."""
    data = bytearray(profile())
    count = int.from_bytes(data[128:132], "big")
    at = {bytes(data[132 + 12 * i : 136 + 12 * i]): 132 + 12 * i for i in range(count)}
    data[at[b"rXYZ"] : at[b"rXYZ"] + 4], data[at[b"bXYZ"] : at[b"bXYZ"] + 4] = b"bXYZ", b"rXYZ"
    return bytes(data)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "LA"])
def test_other_modes_become_rgb_where_that_is_exact(mode: str, tmp_path: Path) -> None:
    source = Image.fromarray(pixels()).convert(mode)
    assert np.array_equal(decode(save(tmp_path / "a.png", source), "--image"), np.array(source.convert("RGB")))


def test_a_grey_picture_with_an_rgb_profile_is_read(tmp_path: Path) -> None:
    source = Image.fromarray(pixels()).convert("L")
    found = decode(save(tmp_path / "a.png", source, icc_profile=profile()), "--image").astype(int)
    assert np.abs(found - np.array(source)[..., None].astype(int)).max() <= 1


def test_a_phones_picture_with_another_behind_it_is_the_picture(tmp_path: Path) -> None:
    front, back = Image.fromarray(pixels()), Image.fromarray(pixels(seed=1))
    path = save(tmp_path / "a.jpg", front, format="MPO", save_all=True, append_images=[back], quality=95)
    with Image.open(path) as opened:
        assert opened.format == "MPO"
        assert np.array_equal(decode(path, "--image"), np.array(opened.convert("RGB")))


def _half(path: Path, **options: Any) -> Path:
    data = save(path, **options).read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return path


def _text(path: Path, text: bytes = b"not an image") -> Path:
    path.write_bytes(text)
    return path


def _clear(path: Path) -> Path:
    image = Image.fromarray(pixels()).convert("RGBA")
    image.putpixel((3, 4), (1, 2, 3, 254))
    return save(path, image)


def _deep(path: Path) -> Path:
    """A 16-bit RGB PNG, which Pillow would cut to 8 bits without a word."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    rows = b"".join(b"\0" + bytes(range(12)) for _ in range(2))
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return _text(path, b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def _keyed(path: Path) -> Path:
    return save(path, Image.fromarray(pixels()), transparency=tuple(int(v) for v in pixels()[0, 0]))


def _changed(path: Path) -> Path:
    data = bytearray(save(path).read_bytes())
    data[len(data) // 2] ^= 1
    return _text(path, bytes(data))


TWO = [Image.fromarray(pixels(seed=1))]
BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "none.png": (lambda path: path, "cannot be read: No such file"),
    "folder.png": (lambda path: (path.mkdir(), path)[1], "cannot be read: Is a directory"),
    "empty.png": (lambda path: _text(path, b""), "not a PNG, JPEG or WebP image"),
    "text.png": (_text, "not a PNG, JPEG or WebP image"),
    "gif.png": (lambda path: save(path, format="GIF"), "not a PNG, JPEG or WebP image"),
    "half.png": (_half, "damaged image"),
    "half.jpg": (_half, "damaged image"),
    "half.webp": (lambda path: _half(path, lossless=True), "damaged image"),
    "changed.png": (_changed, "damaged image"),
    "apng.png": (lambda path: save(path, save_all=True, append_images=TWO), "animated (2 frames)"),
    "webp.webp": (lambda path: save(path, save_all=True, append_images=TWO), "animated (2 frames)"),
    "wide.png": (lambda path: save(path, Image.new("RGB", (16385, 1))), "too large: 1x16385; expected at most 16384"),
    "bomb.png": (lambda path: save(path, Image.new("1", (16384, 5462))), "too large; expected at most 89478485 pixels"),
    "clear.png": (_clear, "transparent; expected an opaque picture"),
    "keyed.png": (_keyed, "transparent; expected an opaque picture"),
    "deep.png": (_deep, "16 bits a channel; expected 8"),
    "deepgrey.png": (lambda path: save(path, Image.new("I;16", (4, 4))), "16 bits a channel; expected 8"),
    "cmyk.jpg": (lambda path: save(path, Image.new("CMYK", (4, 4))), "CMYK without an ICC profile"),
    "icc.png": (lambda path: save(path, icc_profile=b"junk"), "ICC profile cannot be used"),
    "lab.png": (lambda path: save(path, icc_profile=profile(True)), "ICC profile is for another colour space"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_decoded_is_one_line_before_any_work(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, words = BAD[name]
    path = make(tmp_path / name)
    assert cli.main(["run", IMAGED[0].id, "--out", str(tmp_path / "out"), "--image", str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"conformance: error: --image {path}: {words}"), line
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "cache").exists()


def test_the_sides_are_limited_and_the_largest_is_accepted(tmp_path: Path) -> None:
    path = save(tmp_path / "wide.png", Image.new("RGB", (pictures.MAX_SIDE, 2)))
    assert decode(path, "--image").shape == (2, 16384, 3)


def test_every_picked_case_takes_the_picture_and_keeps_its_own_crf_and_strength(tmp_path: Path) -> None:
    path = str(save(tmp_path / "a.png"))
    none: dict[str, Any] = {"settings": [], "config": None, "quantization": None, "kernels": None}
    made = depart(IMAGED, image=path, **none)
    assert len(made) == len(IMAGED)
    for case, before in zip(made, IMAGED, strict=True):
        image, was = case.request.image, before.request.image
        assert image is not None
        assert was is not None
        assert (image.picture, image.height, image.width) == (name_of(pixels()), 24, 36)
        assert (image.crf, image.strength) == (was.crf, was.strength)
        assert case.id == f"{before.id}+image={name_of(pixels())[7:15]}", "limits of another picture do not count"
        assert case.digest != before.digest
        assert origin(case) == (before.id, ["--image", name_of(pixels())])
        (again,) = depart([before], image=name_of(pixels()), **none)
        assert again == case
    assert {case.request.image.crf for case in made if case.request.image} == {0, 33}
    plain = next(case for case in CASES.values() if case.request.image is None)
    with pytest.raises(InputError, match=f"--image: {plain.id.replace('+', '.')} takes no picture"):
        depart([*IMAGED, plain], image=path, **none)


def test_a_copy_that_is_gone_or_changed_is_named_and_made_again(tmp_path: Path) -> None:
    given = take(str(save(tmp_path / "a.png")), "--image")
    copy = tmp_path / "cache" / "pictures" / f"{given.name[7:]}.png"
    image = ImageCondition(picture=given.name, height=24, width=36, crf=0, strength=1.0)
    save(copy, Image.fromarray(pixels(seed=1)))
    with pytest.raises(InputError, match=f"{copy}: was changed"):
        read_picture(image)
    take(str(tmp_path / "a.png"), "--image")
    assert np.array_equal(read_picture(image), pixels())
    other = ImageCondition(picture=given.name, height=24, width=48, crf=0, strength=1.0)
    with pytest.raises(InputError, match="'size' is '24x48'; expected 24x36, which sha256:"):
        read_picture(other)
    copy.unlink()
    with pytest.raises(InputError, match=r"is not in the cache \(.*\); give the file again with --image FILE"):
        read_picture(image)
    with pytest.raises(InputError, match="is not in the cache"):
        take(given.name, "--image")


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONFORMANCE_CACHE", "/proc/none")
    with pytest.raises(InputError, match="--image: cannot be kept in /proc/none/pictures"):
        take(str(save(tmp_path / "a.png")), "--image")


def test_the_name_of_a_file_is_text_on_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "conformance.runner.prepare_checkpoints",
        lambda models, options, on_place: dict.fromkeys(models, ("/none", "0")),
    )
    path = save(tmp_path / "<img src=x onerror=alert(1)>.png", format="PNG")
    words = ["run", IMAGED[0].id, "--image", str(path), "--out", str(tmp_path / "out"), "--engine", "fakes:good"]
    monkeypatch.setattr("sys.argv", ["conformance", *words])
    assert cli.main([*words, "--reference", "fakes:good", "--json", "-"]) == 0
    (result,) = json.loads(capsys.readouterr().out)["cases"]
    assert result["command"].endswith(
        f"--image {name_of(pixels())} --engine fakes:good --reference fakes:good --checkpoint /none"
    )
    page = (tmp_path / "out" / "index.html").read_text()
    assert "onerror=alert" in page, "the command that was run is shown"
    assert "<img src=x" not in page
    assert f"image={name_of(pixels())[7:15]}" in page
