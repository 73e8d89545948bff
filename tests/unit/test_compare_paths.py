"""Two images or two folders of frames on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conformance.compare_paths import compare_paths
from conformance.errors import InputError
from conformance.jsonio import write_json
from conformance.media import read_image, write_png
from conformance.results import CaseResult, load
from conformance.verdicts import Verdict


def frame(seed: int, height: int = 12, width: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).integers(20, 200, (height, width, 3), dtype=np.uint8)


def folder(path: Path, frames: dict[str, np.ndarray]) -> Path:
    for name, image in frames.items():
        write_png(path / f"{name}.png", image)
    return path


def run(a: Path, b: Path, tmp_path: Path, **options: Any) -> CaseResult:
    defaults: dict[str, Any] = {"limits": None, "clip": None, "out": tmp_path / "out", "name": "mine"}
    results = compare_paths(a, b, **(defaults | options))
    assert len(results.cases) == 1
    return results.cases[0]


def refused(a: Path, b: Path, tmp_path: Path, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        run(a, b, tmp_path, **options)
    assert not (tmp_path / "out").exists()
    return str(caught.value)


def test_two_images(tmp_path: Path) -> None:
    base = frame(0)
    write_png(tmp_path / "mine.png", base + np.uint8(2))
    write_png(tmp_path / "theirs.png", base)
    case = run(tmp_path / "mine.png", tmp_path / "theirs.png", tmp_path, limits={"mean_abs_diff": 2.0})
    assert (case.id, case.gate, case.verdict) == ("compare/mine", "reference", Verdict.PASS)
    shown = case.frames[0]
    assert np.array_equal(read_image(tmp_path / "out" / shown.candidate), base + np.uint8(2))
    assert np.array_equal(read_image(tmp_path / "out" / shown.reference), base)
    assert read_image(tmp_path / "out" / shown.heat).any()
    assert run(tmp_path / "mine.png", tmp_path / "mine.png", tmp_path).verdict == Verdict.PASS_EXACT


def test_folders_are_matched_by_stem_in_natural_order(tmp_path: Path) -> None:
    frames = {f"f{i}": frame(i) for i in (10, 2, 1)}
    a, b = folder(tmp_path / "a", frames), folder(tmp_path / "b", frames)
    damaged = frames["f10"].copy()
    damaged[0, 0] += 5
    write_png(a / "f10.png", damaged)
    (b / ".DS_Store").write_text("hidden")
    case = run(a, b, tmp_path)
    assert case.evidence["frames"] == ["f1", "f2", "f10"]
    assert [shown.metrics["max_abs_diff"] for shown in case.frames] == [0, 0, 5]
    assert case.verdict == Verdict.CALIBRATION_NEEDED


def test_conditioning_frames_are_excluded_and_listed(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", {"frame_0": frame(0), "frame_1": frame(1)})
    b = folder(tmp_path / "b", {"frame_0": frame(9, 4, 4), "frame_1": frame(1)})
    case = run(a, b, tmp_path, exclude=("frame_0",))
    assert case.verdict == Verdict.PASS_EXACT
    assert (case.evidence["frames"], case.evidence["excluded"]) == (["frame_1"], ["frame_0"])
    assert len(case.frames) == 1
    assert "'exclude' is 'frame_7'" in refused(a, b, tmp_path / "x", exclude=("frame_7",))
    assert "at least one frame" in refused(a, b, tmp_path / "x", exclude=("frame_0", "frame_1"))


def test_results_round_trip(tmp_path: Path) -> None:
    a, b = folder(tmp_path / "a", {"f": frame(0)}), folder(tmp_path / "b", {"f": frame(1)})
    results = compare_paths(a, b, limits={"ssim": 0.9}, clip=None, out=tmp_path / "out", name="mine")
    assert results.exit_code == 1
    write_json(tmp_path / "out" / "results.json", results.as_dict())
    assert load(tmp_path / "out" / "results.json") == results


def test_lossy_files_are_noted(tmp_path: Path) -> None:
    folder(tmp_path / "b", {"f": frame(0)})
    (tmp_path / "a").mkdir()
    Image.fromarray(frame(0)).save(tmp_path / "a" / "f.JPG", quality=75)
    case = run(tmp_path / "a", tmp_path / "b", tmp_path)
    assert case.evidence["lossy"] == ["f.JPG"]
    assert "; lossy input (1 of 2 files); the codec alone (JPEG with the same tables) moves the reference to ssim" in (
        case.reason
    )
    assert "lossy" not in run(tmp_path / "b", tmp_path / "b", tmp_path).reason


def test_the_floor_of_a_jpeg_is_what_its_tables_do_to_the_reference(tmp_path: Path) -> None:
    a, b = tmp_path / "a", folder(tmp_path / "b", {"f": frame(0, 40, 48)})
    a.mkdir()
    Image.fromarray(frame(0, 40, 48)).save(a / "f.jpg", quality=60, subsampling=0)
    case = run(a, b, tmp_path)
    floor = case.evidence["codec_floor"]
    for name in ("ssim", "psnr", "mean_abs_diff"):  # the candidate is that and nothing else
        assert floor["metrics"][name] == case.metrics[name].worst
    assert "note" not in floor
    (b / "f.png").rename(b / "lossless.png")
    Image.fromarray(frame(0, 40, 48)).save(b / "f.jpg", quality=60, subsampling=0)
    (b / "lossless.png").unlink()
    both = run(a, b, tmp_path)
    assert "a lower bound: the reference was coded before" in both.reason
    Image.fromarray(frame(0, 40, 48)).save(a / "f.webp", quality=60)
    (a / "f.jpg").unlink()
    assert "the codec's floor was not measured: f.webp: a WEBP does not tell its quality" in run(a, b, tmp_path).reason


def test_the_common_frames_on_request_and_never_silently(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", {"f1": frame(1), "f2": frame(2)})
    b = folder(tmp_path / "b", {"f2": frame(2), "f3": frame(3)})
    case = run(a, b, tmp_path, common=True)
    assert case.evidence["frames"] == ["f2"]
    assert case.reason.endswith(f"; judged in part, 1 of 3 frames: {a} lacks f3; {b} lacks f1")
    assert case.evidence["missing"] == [f"{a} lacks f3", f"{b} lacks f1"]
    assert case.command.endswith(" --common")
    (a / "f2.png").unlink()
    assert "at least one frame left" in refused(a, b, tmp_path / "x", common=True)


def test_different_sets_are_listed(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", {"f1": frame(1), "f2": frame(2)})
    b = folder(tmp_path / "b", {"f2": frame(2), "f3": frame(3), "f10": frame(4)})
    assert refused(a, b, tmp_path) == f"the folders hold different frames: {a} lacks f3, f10; {b} lacks f1"


def test_mixed_sizes_name_both_files(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", {"f1": frame(1), "f2": frame(2, 12, 20)})
    b = folder(tmp_path / "b", {"f1": frame(1), "f2": frame(2)})
    expected = f"different sizes: {a / 'f1.png'} is 16x12 and {a / 'f2.png'} is 20x12 pixels; nothing is resized"
    assert refused(a, b, tmp_path) == expected
    assert refused(b, a, tmp_path) == expected
    small = folder(tmp_path / "small", {"f1": frame(1, 8, 8), "f2": frame(2, 8, 8)})
    expected = f"different sizes: {small / 'f1.png'} is 8x8 and {b / 'f1.png'} is 16x12 pixels; nothing is resized"
    assert refused(small, b, tmp_path) == expected


def test_paths_that_cannot_be_used(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", {"f": frame(0)})
    (tmp_path / "empty").mkdir()
    assert "no such file or folder" in refused(a, tmp_path / "missing", tmp_path)
    assert "no frames; expected .png" in refused(tmp_path / "empty", a, tmp_path)
    assert "one is a file and one a folder" in refused(a, a / "f.png", tmp_path)
    for name in ("notes.txt", "f.bmp"):
        stray = folder(tmp_path / name, {"f": frame(0)}) / name
        stray.write_text("x")
        assert refused(a, stray.parent, tmp_path).startswith(f"{stray}: not a frame; expected only .png")
    nested = folder(tmp_path / "nested", {"f": frame(0)})
    (nested / "sub.png").mkdir()
    assert "not a frame" in refused(a, nested, tmp_path)
    twice = folder(tmp_path / "twice", {"f": frame(0)})
    Image.fromarray(frame(0)).save(twice / "f.jpg")
    assert f"{twice / 'f.png'}: a second file for frame 'f' beside f.jpg" in refused(a, twice, tmp_path)
    (a / "f.png").write_bytes(b"damaged")
    assert "not a PNG" in refused(a, a, tmp_path)
