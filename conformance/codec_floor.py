"""What a lossy codec alone does: the reference's frames, coded again as the lossy side was, against themselves."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, JpegImagePlugin

from conformance.clips import Codec, read_video
from conformance.compare import compare
from conformance.errors import InputError
from conformance.generator import Sample
from conformance.scratch import FrameStore
from conformance.sides import Side

ENCODERS = {
    "h264": "libx264",
    "hevc": "libx265",
    "vp9": "libvpx-vp9",
    "vp8": "libvpx",
    "av1": "libsvtav1",
    "mpeg4": "mpeg4",
}


def codec_floor(lossy: Side, reference: np.ndarray, names: Sequence[str], scratch: Path) -> dict[str, Any]:
    """``{"codec", "metrics": {name: worst}}`` of uint8 frames [F,H,W,3] coded as ``lossy`` is, or ``{"codec", "note"}``
    that says why it cannot be measured."""
    store = FrameStore(scratch / "coded.raw")
    try:
        coded = (
            _code_video(lossy.codec, reference, scratch, store)
            if lossy.codec
            else _code_images(lossy, reference, names, store)
        )
    except InputError as error:
        return {
            "codec": str(lossy.codec) if lossy.codec else "images",
            "note": f"the codec's floor was not measured: {error}",
        }
    if store.count != len(reference) or store.shape != reference.shape[1:]:
        return {"codec": coded, "note": f"the codec's floor was not measured: {store.count} frames came back"}
    found = compare(_frames(store.frames()), _frames(reference), limits=None)
    return {"codec": coded, "metrics": {name: m.worst for name, m in found.metrics.items() if m.worst is not None}}


def _frames(frames: np.ndarray) -> Sample:
    return Sample(frames=frames[None], frames_float=None, audio=None, audio_rate=None, latents={})


def _code_images(lossy: Side, reference: np.ndarray, names: Sequence[str], store: FrameStore) -> str:
    """With the quantisation tables and the chroma subsampling of each JPEG."""
    for name, frame in zip(names, reference, strict=True):
        with Image.open(lossy.files[name]) as image:
            if image.format != "JPEG":
                raise InputError(f"{lossy.files[name].name}: a {image.format} does not tell its quality")
            tables, sampling = image.quantization, JpegImagePlugin.get_sampling(image)  # type: ignore[attr-defined]
        buffer = io.BytesIO()
        Image.fromarray(np.asarray(frame)).save(buffer, format="JPEG", qtables=tables, subsampling=sampling)
        store.add(np.array(Image.open(buffer).convert("RGB"), dtype=np.uint8), name)
    return "JPEG with the same tables"


def _code_video(codec: Codec, reference: np.ndarray, scratch: Path, store: FrameStore) -> str:
    import av

    encoder = ENCODERS.get(codec.name)
    if encoder is None or encoder not in av.codecs_available:
        raise InputError(f"no encoder for {codec.name} here")
    path = scratch / "coded.mkv"
    try:
        with av.open(str(path), "w") as container:
            options = {} if codec.crf is None else {"crf": f"{codec.crf:g}"}
            stream: Any = container.add_stream(encoder, rate=codec.rate, options=options)
            stream.height, stream.width = reference.shape[1:3]
            stream.pix_fmt = codec.pixel_format
            if codec.crf is None:
                stream.bit_rate = codec.bit_rate
            for image in reference:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")))
            container.mux(stream.encode())
    except (av.FFmpegError, OSError, ValueError) as error:
        raise InputError(f"{encoder} failed ({' '.join(str(error).split())})") from None
    read_video(path, store)
    return str(codec)
