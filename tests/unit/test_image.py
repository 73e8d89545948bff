"""Image conditioning: the picture, its encoding, and how the pipeline holds the given frame."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import slow_parts
import torch
from engine_reference import CPU, tiny_case, tiny_request

from conformance.case import PICTURES, ImageCondition
from conformance.errors import InputError
from conformance.generator import Probe
from conformance.inputs import draw_picture
from engine import image
from engine.generator import build
from engine.numerics import Numerics
from reference_impl.diffusers_ltx2 import build as build_reference
from reference_impl.tiny.build import cached

REQUEST = tiny_request(
    image=ImageCondition(picture="rings", height=64, width=96, crf=0, strength=1.0), steps=2, sigmas=(1.0, 0.5)
)


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_use_the_range_and_differ_from_each_other(name: str) -> None:
    picture = draw_picture(name, 96, 160)
    assert (picture.shape, picture.dtype) == ((96, 160, 3), np.uint8)
    assert picture.std() > 40
    assert picture.min() == 0
    assert picture.max() == 255
    others = [draw_picture(other, 96, 160) for other in PICTURES if other != name]
    assert all((picture != other).mean() > 0.3 for other in others)


def test_an_unknown_picture_is_named() -> None:
    with pytest.raises(InputError, match="'sunset'"):
        draw_picture("sunset", 32, 32)


def test_encoding_costs_quality_and_zero_costs_nothing() -> None:
    picture = draw_picture("rings", 96, 160)
    assert image.through_h264(picture, 0) is picture
    errors = [np.abs(image.through_h264(picture, crf).astype(int) - picture).mean() for crf in (5, 33, 45)]
    assert 0 < errors[0] < errors[1] < errors[2]


def test_pixels_reach_the_ends_of_the_range_and_keep_their_places() -> None:
    picture = np.zeros((2, 3, 3), np.uint8)
    picture[0, 2] = (255, 51, 0)
    pixels = image.fitted(picture, 2, 3, Numerics.diffusers(), CPU)
    assert pixels.shape == (1, 3, 1, 2, 3)
    torch.testing.assert_close(pixels[0, :, 0, 0, 2], torch.tensor([1.0, -0.6, -1.0]))
    assert (pixels[0, :, 0, 1] == -1).all()


@pytest.mark.parametrize("crf", [0, 33])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("model", slow_parts.MODELS)
def test_bitwise_equal_to_the_image_to_video_pipeline(model: str, dtype: str, crf: int) -> None:
    request = replace(REQUEST, image=ImageCondition(picture="rings", height=64, width=96, crf=crf, strength=1.0))
    case = tiny_case(model, dtype, request, pipeline="one-stage-ti2v")
    traces = []
    for factory in (build, build_reference):
        probe = Probe()
        factory(cached(model), "cpu").generate(case, probe)
        traces.append({name: tap.sha256 for name, tap in probe.trace.items()})
    assert traces[0] == traces[1]
    assert {"image/pixels", "image/latents"} <= traces[0].keys()


def test_the_given_frame_is_held_and_the_rest_is_not() -> None:
    probe = Probe(depth="step")
    case = tiny_case("ltx-2.3", "fp32", REQUEST, pipeline="one-stage-ti2v")
    build(cached("ltx-2.3"), "cpu").generate(case, probe)
    given = probe.tensors["image/latents"]
    for name in ("step.000/latents/video", "step.001/latents/video", "latents/final/video"):
        assert torch.equal(probe.tensors[name][0, : len(given)], given), name
    first, last = probe.tensors["step.000/latents/video"], probe.tensors["latents/final/video"]
    assert not torch.isclose(first[0, len(given) :], last[0, len(given) :]).any(dim=-1).all()


SIZES = [(64, 96), (70, 81), (200, 150), (33, 401), (7, 5)]


@pytest.mark.parametrize("crf", [0, 33])
@pytest.mark.parametrize("size", SIZES)
def test_a_picture_of_another_size_is_stretched_as_the_image_to_video_pipeline_does(
    size: tuple[int, int], crf: int
) -> None:
    picture = ImageCondition(picture="rings", height=size[0], width=size[1], crf=crf, strength=1.0)
    reference = build_reference(cached("ltx-2.3"), "cpu")
    case = tiny_case("ltx-2.3", "fp32", replace(REQUEST, image=picture), pipeline="one-stage-ti2v")
    pixels = reference.generate(case, Probe(depth="step")).tensors["image/pixels"]
    encoded = image.through_h264(draw_picture("rings", *size), crf)
    assert encoded.shape[:2] == (size if crf == 0 else tuple(side // 2 * 2 for side in size))
    assert torch.equal(image.fitted(encoded, 64, 96, Numerics.diffusers(), CPU), pixels)


def test_a_picture_too_small_to_encode_is_named() -> None:
    with pytest.raises(InputError, match="'height, width' is \\(1, 9\\); expected at least 2 pixels each"):
        image.through_h264(draw_picture("rings", 1, 9), 33)
    assert image.through_h264(draw_picture("rings", 2, 3), 33).shape == (2, 2, 3)
