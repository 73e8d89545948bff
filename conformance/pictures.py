"""Pictures that a user gives: decoded once, before any work, and kept by the sha256 of what was decoded.

Legend: H W pixels, 3 colours.
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps

from conformance import environment
from conformance.errors import InputError
from conformance.media import IHDR_BIT_DEPTH, read_image, write_png

MAX_SIDE = 16384
_NAME = re.compile(r"sha256:([0-9a-f]{64})")
_FORMATS = ("PNG", "JPEG", "WEBP")
# Colour space of an ICC profile -> the mode of the pixels it describes
_PROFILED = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}


@dataclass(frozen=True, kw_only=True)
class Picture:
    """name: what ``ImageCondition.picture`` says, see :func:`name_of`. height, width: pixels."""

    name: str
    height: int
    width: int


def name_of(picture_HW3: np.ndarray) -> str:
    """``sha256:`` and the digits over height, width and the RGB bytes: the same for every file that decodes alike."""
    height, width = picture_HW3.shape[:2]
    data = f"{height}x{width}\0".encode() + np.ascontiguousarray(picture_HW3).tobytes()
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def take(given: str, where: str) -> Picture:
    """Decode the file ``given`` and keep it as PNG in the cache; or find there what ``sha256:`` and 64 digits name.

    InputError, one line beginning with ``where``, for what :func:`decode` or :func:`read` refuses.
    """
    if _NAME.fullmatch(given):
        pixels_HW3 = read(given)
    else:
        pixels_HW3 = decode(Path(given), where)
        _keep(pixels_HW3, where)
    return Picture(name=name_of(pixels_HW3), height=pixels_HW3.shape[0], width=pixels_HW3.shape[1])


def read(name: str) -> np.ndarray:
    """A picture that was given before, uint8 [H,W,3]. InputError when it is not in the cache or was changed there."""
    path = _path(name)
    if not path.is_file():
        raise InputError(f"picture {name} is not in the cache ({path.parent}); give the file again with --image FILE")
    pixels_HW3 = read_image(path)
    if name_of(pixels_HW3) != name:
        raise InputError(f"{path}: was changed; delete it and give the file again with --image FILE")
    return pixels_HW3


def decode(path: Path, where: str) -> np.ndarray:
    """A PNG, JPEG or WebP file as a viewer shows it, uint8 [H,W,3]: turned as its EXIF says, its ICC profile to sRGB.

    InputError names the path for a file that is absent, damaged, no such image, animated, of 16 bits a channel, not
    opaque, of colours that are not defined (CMYK without a profile), or of more than 16384 pixels a side or Pillow's
    limit in all.
    """
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        raise InputError(f"{where} {path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                image.verify()
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                problem = _refused(image, data)
                if not problem:
                    return _shown(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        problem = f"too large; expected at most {Image.MAX_IMAGE_PIXELS} pixels"
    except Image.UnidentifiedImageError:
        problem = "not a PNG, JPEG or WebP image"
    except _Refused as error:
        problem = str(error)
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError) as error:
        problem = f"damaged image ({error})"
    raise InputError(f"{where} {path}: {problem}")


class _Refused(Exception):
    """Found only once the pixels are there."""


def _refused(image: Image.Image, data: bytes) -> str:
    """Why the header alone forbids the image, or nothing."""
    if max(image.size) > MAX_SIDE:
        return f"too large: {image.height}x{image.width}; expected at most {MAX_SIDE} pixels a side"
    # a phone's JPEG may carry previews or a gain map behind the picture ("MPO"): the first frame is the picture
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        return f"animated ({image.n_frames} frames); expected one picture"  # type: ignore[attr-defined]
    if image.mode.startswith("I") or (image.format == "PNG" and data[IHDR_BIT_DEPTH] == 16):
        return "16 bits a channel; expected 8"
    if image.mode == "CMYK" and not image.info.get("icc_profile"):
        return "CMYK without an ICC profile; expected RGB, or a profile"
    return ""


def _shown(image: Image.Image) -> np.ndarray:
    """uint8 [H,W,3] in sRGB."""
    profile = image.info.get("icc_profile")
    turned = ImageOps.exif_transpose(image)
    if turned.mode in ("RGBA", "LA", "PA") or "transparency" in turned.info:
        alpha = turned.convert("RGBA").getchannel("A")
        if alpha.getextrema() != (255, 255):
            raise _Refused("transparent; expected an opaque picture, as what lies behind it is not defined")
    if turned.mode in ("L", "LA", "1"):
        turned = turned.convert("L")
    elif turned.mode != "CMYK":
        turned = turned.convert("RGB")
    return np.array(_to_srgb(turned, profile) if profile else turned.convert("RGB"), dtype=np.uint8)


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = _PROFILED.get(source.profile.xcolor_space.strip())
        if (image.mode, mode) == ("L", "RGB"):
            image = image.convert("RGB")  # a grey picture in an RGB space: r = g = b
        if image.mode != mode:
            raise _Refused(f"ICC profile is for {mode or 'another colour space'}, the pixels are {image.mode}")
        done = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        raise _Refused(f"ICC profile cannot be used ({error})") from None
    assert done is not None  # it is None only when told to work in place
    return done


def _path(name: str) -> Path:
    match = _NAME.fullmatch(name)
    if not match:
        raise InputError(f"picture {name!r}: expected sha256: and 64 digits")
    return environment.cache_root() / "pictures" / f"{match[1]}.png"


def _keep(picture_HW3: np.ndarray, where: str) -> None:
    name = name_of(picture_HW3)
    try:
        read(name)
    except InputError:  # absent, or damaged: then it is written anew
        path = _path(name)
        try:
            write_png(path, picture_HW3)
        except OSError as error:
            raise InputError(f"{where}: cannot be kept in {path.parent} ({error.strerror or error})") from None
