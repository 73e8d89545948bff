"""Videos, sound and saved samples on disk, written by the test."""

from __future__ import annotations

import contextlib
import wave
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from conformance.artifacts import write_frames, write_sample
from conformance.clips import read_sound, read_video
from conformance.compare_paths import compare_paths
from conformance.errors import InputError
from conformance.generator import Sample
from conformance.media import write_png, write_wav
from conformance.results import CaseResult
from conformance.scratch import FrameStore
from conformance.verdicts import Verdict

RATE = 16000


def frames(count: int = 6, height: int = 48, width: int = 64) -> np.ndarray:
    """A smooth picture that moves [F,H,W,3]."""
    smooth = gaussian_filter(np.random.default_rng(0).standard_normal((height, width + count, 3)), (4, 4, 0))
    scene = np.rint(128 + smooth * (90 / np.abs(smooth).max())).astype(np.uint8)
    return np.stack([scene[:, f : f + width] for f in range(count)])


def tone(samples: int = 3200) -> np.ndarray:
    """Two channels [2,N]."""
    t = np.arange(samples) / RATE
    return (0.3 * np.sin(2 * np.pi * np.array([[440], [660]]) * t)).astype(np.float32)


def video(
    path: Path, pixels: np.ndarray, codec: str = "ffv1", pix_fmt: str = "bgr0", sound: str = "", **options: str
) -> Path:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=Fraction(24), options=options)
        stream.height, stream.width, stream.pix_fmt = *pixels.shape[1:3], pix_fmt
        heard: Any = container.add_stream(sound, rate=RATE, layout="stereo") if sound else None
        for image in pixels:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
        if heard:
            pcm = np.round(tone() * 32767).astype(np.int16)
            block = av.AudioFrame.from_ndarray(pcm.T.reshape(1, -1).copy(), format="s16", layout="stereo")
            block.sample_rate = RATE
            container.mux(heard.encode(block))
            container.mux(heard.encode())
    return path


def run(a: Path, b: Path, tmp_path: Path, **options: Any) -> CaseResult:
    defaults: dict[str, Any] = {"limits": None, "clip": None, "out": tmp_path / "out", "name": "mine"}
    return compare_paths(a, b, **(defaults | options)).cases[0]


def refused(a: Path, b: Path, tmp_path: Path, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        run(a, b, tmp_path / "refused", **options)
    assert not (tmp_path / "refused").exists()
    return str(caught.value)


def test_a_lossless_video_is_read_bit_for_bit(tmp_path: Path) -> None:
    pixels = frames()
    store = FrameStore(tmp_path / "frames")
    codec = read_video(video(tmp_path / "a.mkv", pixels), store)
    assert np.array_equal(store.frames(), pixels)
    assert (codec.lossless, codec.name, codec.rate) == (True, "ffv1", 24)
    damaged = pixels.copy()
    damaged[4, 5, 6] += 9
    case = run(video(tmp_path / "b.mkv", damaged), tmp_path / "a.mkv", tmp_path, limits={"max_abs_diff": 8})
    assert (case.verdict, len(case.frames)) == (Verdict.FAIL, 6)
    assert "max_abs_diff is 9, not <= 8 (output 0 frame 4)" in case.reason
    assert "lossy" not in case.reason
    assert case.metrics["motion_diff"].worst is not None
    assert run(tmp_path / "a.mkv", tmp_path / "a.mkv", tmp_path).verdict == Verdict.PASS_EXACT


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt", "options"),
    [
        ("a.mp4", "libx264", "yuv420p", {"crf": "30"}),
        ("a.mkv", "libx264", "yuv444p", {"crf": "20"}),
        ("a.webm", "libvpx-vp9", "yuv420p", {}),
    ],
)
def test_lossy_videos_say_so_and_have_a_floor(
    tmp_path: Path, name: str, codec: str, pix_fmt: str, options: dict[str, str]
) -> None:
    pixels = frames()
    reference = video(tmp_path / "reference.mkv", pixels)
    case = run(video(tmp_path / name, pixels, codec, pix_fmt, **options), reference, tmp_path)
    assert "; lossy input (1 of 2 files); the codec alone (" in case.reason
    floor = case.evidence["codec_floor"]
    if "crf" in options:
        assert floor["codec"] == f"h264 crf {options['crf']}, {pix_fmt}"
        for metric in ("ssim", "psnr", "mean_abs_diff"):  # the same coder, again
            assert floor["metrics"][metric] == case.metrics[metric].worst
    assert floor["metrics"]["psnr"] < 60
    both = run(tmp_path / name, tmp_path / name, tmp_path)
    assert both.verdict == Verdict.PASS_EXACT
    assert "a lower bound: the reference was coded before" in both.reason


@pytest.mark.parametrize(("codec", "pix_fmt"), [("libx264rgb", "rgb24"), ("ffv1", "yuv420p")])
def test_neither_a_lossy_codec_nor_half_the_colour_is_lossless(tmp_path: Path, codec: str, pix_fmt: str) -> None:
    path = video(tmp_path / "a.mkv", frames(2), codec, pix_fmt)
    case = run(path, video(tmp_path / "b.mkv", frames(2)), tmp_path)
    assert case.evidence["lossy"][0].startswith("a.mkv (")
    assert "the codec's floor was not measured: " in case.reason


def test_a_folder_and_a_video_are_matched_by_place(tmp_path: Path) -> None:
    pixels = frames()
    for index, image in enumerate(pixels):
        write_png(tmp_path / "a" / f"f{index + 1}.png", image)
    clip = video(tmp_path / "b.mkv", pixels, sound="pcm_s16le")
    case = run(tmp_path / "a", clip, tmp_path)
    assert case.verdict == Verdict.PASS_EXACT
    assert case.evidence["frames"] == ["f1", "f2", "f3", "f4", "f5", "f6"]
    assert "the sound of b.mkv was not judged: a is pictures" in case.reason
    assert run(tmp_path / "a", clip, tmp_path, exclude=("f1",)).evidence["frames"][0] == "f2"
    assert run(tmp_path / "a", clip, tmp_path, exclude=("f3",)).verdict == Verdict.PASS_EXACT


def test_another_number_of_frames_is_refused_or_said(tmp_path: Path) -> None:
    a, b = video(tmp_path / "a.mkv", frames()), video(tmp_path / "b.mkv", frames()[:4])
    assert refused(a, b, tmp_path) == f"the videos hold different frames: {b} has 4 frames, {a} has 6"
    case = run(a, b, tmp_path, common=True)
    assert case.verdict == Verdict.PASS_EXACT
    assert f"judged in part, 4 of 6 frames: {b} has 4 frames, {a} has 6" in case.reason
    small = video(tmp_path / "small.mkv", frames(6, 32, 64))
    assert "small.mkv is 64x32 and" in refused(small, a, tmp_path)


def test_the_sound_of_videos_is_judged(tmp_path: Path) -> None:
    a = video(tmp_path / "a.mkv", frames(), sound="pcm_s16le")
    b = video(tmp_path / "b.mkv", frames(), sound="aac")
    sound = read_sound(a)
    assert sound is not None
    assert (sound.rate, sound.lossless) == (RATE, True)
    np.testing.assert_allclose(sound.audio, tone(), atol=1 / 32767)
    assert run(a, a, tmp_path).verdict == Verdict.PASS_EXACT
    case = run(b, a, tmp_path, limits={"audio.duration_s": 1.0})
    assert "lossy input (1 of 2 files); the floor of a sound codec is not measured" in case.reason
    assert case.metrics["audio.correlation"].worst is not None
    silent = video(tmp_path / "silent.mkv", frames())
    assert "audio is absent" in run(silent, a, tmp_path).reason


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_sound_alone(tmp_path: Path, suffix: str) -> None:
    write_wav(tmp_path / "a.wav", tone(), RATE)
    path = tmp_path / f"b.{suffix}"
    if suffix == "flac":
        with av.open(str(path), "w") as container:
            stream: Any = container.add_stream("flac", rate=RATE, layout="stereo")
            pcm = np.round(tone() * 32767).astype(np.int16)
            block = av.AudioFrame.from_ndarray(pcm.T.reshape(1, -1).copy(), format="s16", layout="stereo")
            block.sample_rate = RATE
            container.mux(stream.encode(block))
            container.mux(stream.encode())
    else:
        write_wav(path, tone(), RATE)
    case = run(tmp_path / "a.wav", path, tmp_path)
    assert (case.verdict, case.frames) == (Verdict.PASS_EXACT, ())
    write_wav(path.with_suffix(".wav"), tone()[::-1], RATE)
    case = run(path.with_suffix(".wav"), tmp_path / "a.wav", tmp_path, limits={"audio.side_correlation": 0.9})
    assert case.verdict == Verdict.FAIL
    assert "one is sound and one is not" in refused(tmp_path / "a.wav", video(tmp_path / "v.mkv", frames(2)), tmp_path)


def saved(root: Path, seed: int) -> Path:
    """A case's folder as a run writes it."""
    generator = torch.Generator().manual_seed(seed)
    pixels = np.stack([frames(3), frames(3)[:, ::-1]])
    mine, theirs = (
        Sample(
            frames=pixels + np.uint8(level),
            frames_float=None,
            audio=tone()[None],
            audio_rate=RATE,
            latents={"video": torch.randn(2, 6, 8, generator=generator)},
        )
        for level in (1, 0)
    )
    write_frames((), mine, theirs, root, "cases/x")
    write_sample(mine, root, "cases/x", "candidate")
    write_sample(theirs, root, "cases/x", "reference")
    return root / "cases/x"


def test_saved_samples(tmp_path: Path) -> None:
    a, b = saved(tmp_path / "a", 1), saved(tmp_path / "b", 2)
    case = run(a, b, tmp_path)
    assert len(case.frames) == 6
    assert {frame.batch for frame in case.frames} == {0, 1}
    assert case.metrics["mean_abs_diff"].worst == 0
    assert case.metrics["audio.correlation"].worst == 1
    assert case.metrics["latents.rel_l2"].worst is not None
    assert case.metrics["latents.rel_l2"].worst > 0.5
    within = run(a / "candidate", a / "reference", tmp_path)
    assert within.metrics["mean_abs_diff"].worst == 1
    assert run(a, a, tmp_path).verdict == Verdict.PASS_EXACT
    (b / "candidate.safetensors").write_bytes(b"damaged")
    assert f"{b / 'candidate.safetensors'}: cannot be read" in refused(a, b, tmp_path)


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.8])
def test_truncated_videos_are_refused(tmp_path: Path, name: str, keep: float) -> None:
    codec, pix_fmt = ("ffv1", "bgr0") if name == "a.mkv" else ("libx264", "yuv420p")
    path = video(tmp_path / name, frames(24), codec, pix_fmt)
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    assert str(path) in refused(path, path, tmp_path)


def test_damaged_and_odd_files_are_refused(tmp_path: Path) -> None:
    text = tmp_path / "a.mp4"
    text.write_text("<html>")
    assert refused(text, text, tmp_path).startswith(f"{text}: cannot be decoded (")
    write_wav(tmp_path / "a.wav", tone(), RATE)
    (tmp_path / "a.wav").rename(tmp_path / "b.mkv")
    assert refused(tmp_path / "b.mkv", tmp_path / "b.mkv", tmp_path) == f"{tmp_path / 'b.mkv'}: no video stream"
    video(tmp_path / "v.mkv", frames(2)).rename(tmp_path / "v.wav")
    assert refused(tmp_path / "v.wav", tmp_path / "v.wav", tmp_path) == f"{tmp_path / 'v.wav'}: no audio stream"
    write_wav(tmp_path / "c.wav", tone(), RATE)
    data = (tmp_path / "c.wav").read_bytes()
    (tmp_path / "c.wav").write_bytes(data[: len(data) // 2])
    with wave.open(str(tmp_path / "c.wav")) as file:
        assert file.getnframes() == 3200  # so it says
    assert "it is damaged or cut off" in refused(tmp_path / "c.wav", tmp_path / "c.wav", tmp_path)


def test_flipped_bytes_in_a_video_are_never_a_crash(tmp_path: Path) -> None:
    path = video(tmp_path / "a.mp4", frames(), "libx264", "yuv420p")
    data = bytearray(path.read_bytes())
    for place in range(0, len(data), 97):
        broken = tmp_path / "b.mp4"
        broken.write_bytes(data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :])
        with contextlib.suppress(InputError):  # no other error
            read_video(broken, FrameStore(tmp_path / "frames"))
