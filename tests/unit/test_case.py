"""Cases: validation names the field, JSON round trips, the digest sees every bit-changing field."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conformance.case import Case, Guidance, ImageCondition, Layout, Override, Request, SecondStage, slug
from conformance.errors import InputError
from conformance.matrix import all_cases
from conformance.tiling import Tiles, VideoTiling

CASES = {case.id: case for case in all_cases()}
IMAGE = {"picture": "blocks", "height": 96, "width": 160, "crf": 0, "strength": 1.0}
SECOND = {"sigmas": (0.9, 0.4), "lora_first": 0.0, "lora_second": 1.0}
GUIDED = CASES["ltx-2.3/one-stage-t2v/all-guidance@single+diffusers-fp32"]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_every_case_survives_a_json_round_trip(case: Case) -> None:
    assert Case.from_dict(json.loads(json.dumps(case.as_dict()))) == case


def _changed(request: Request) -> list[tuple[str, Request]]:
    guidance = replace(request.video_guidance, cfg=2.0)
    values = {
        "prompts": ("another",),
        "negative_prompts": ("another",),
        "height": 160,
        "width": 160,
        "num_frames": 9,
        "frame_rate": 23.0,
        "steps": 4,  # together with sigmas, below
        "sigmas": None,
        "seed": 11,
        "text_tokens": 32,
        "video_guidance": guidance,
        "audio_guidance": guidance,
        "stg_blocks": (0, 1),
        "skip_v2a": True,
        "image": ImageCondition(**IMAGE),
        "second": SecondStage(**SECOND),
        "vae_tiling": VideoTiling(rows=None, columns=None, frames=Tiles(size=8, stride=8)),
    }
    assert values.keys() == {field.name for field in fields(Request)}
    changed = [(name, replace(request, **{name: value})) for name, value in values.items() if name != "steps"]
    return [*changed, ("steps", replace(request, steps=3, sigmas=request.sigmas[:3] if request.sigmas else None))]


@pytest.mark.parametrize(("name", "request_"), _changed(GUIDED.request), ids=lambda value: str(value)[:20])
def test_the_digest_sees_every_field_of_the_request(name: str, request_: Request) -> None:
    second = request_.second is not None
    before = replace(GUIDED.request, second=SecondStage(**{**SECOND, "lora_second": 0.5})) if second else GUIDED.request
    case = replace(GUIDED, pipeline="two-stage" if second else "one-stage", request=before)
    assert replace(case, request=request_).digest != case.digest


@pytest.mark.parametrize("name", ["model", "pipeline", "variant", "numerics", "checkpoint"])
def test_the_digest_sees_every_field_of_the_case(name: str) -> None:
    assert replace(GUIDED, **{name: "other"}).digest != GUIDED.digest


def test_the_digest_and_the_id_see_kernels() -> None:
    fused = replace(GUIDED, kernels="on")
    assert fused.digest != GUIDED.digest
    assert fused.id == f"{GUIDED.id}+kernels"
    assert (fused.axes["kernels"], GUIDED.axes["kernels"]) == ("on", "off")


def test_kernels_are_on_or_off() -> None:
    with pytest.raises(InputError, match=r"case: 'kernels' is 'auto'; expected one of \('off', 'on'\)"):
        replace(GUIDED, kernels="auto")


def test_the_digest_does_not_see_the_suites_a_case_runs_in() -> None:
    assert replace(GUIDED, suites=("full",)).digest == GUIDED.digest


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("prompts", (), "at least one"),
        ("prompts", "one text", "a list"),
        ("negative_prompts", ("a", "b"), "1 of them"),
        ("height", 100, "multiple of 32"),
        ("width", 0, "multiple of 32"),
        ("num_frames", 16, "8k+1"),
        ("frame_rate", 0.0, "positive"),
        ("frame_rate", float("nan"), "finite"),
        ("steps", 0, "at least 1"),
        ("steps", True, "of type int"),
        ("sigmas", (0.5,), "4 values"),
        ("sigmas", (0.1, 0.2, 0.3, 0.4), "strictly falling"),
        ("sigmas", (1.5, 0.8, 0.3, 0.1), "strictly falling within (0, 1]"),
        ("seed", -1, "within [0"),
        ("text_tokens", 0, "at least 1"),
        ("stg_blocks", (), "exactly when"),
        ("stg_blocks", (-1,), "from 0"),
    ],
)
def test_a_bad_request_names_field_value_and_expectation(field: str, value: object, words: str) -> None:
    with pytest.raises(InputError) as error:
        replace(GUIDED.request, **{field: value})
    assert field in str(error.value)
    assert words in str(error.value)


@pytest.mark.parametrize(
    "bad", [{"cfg": 0.9}, {"stg": -0.1}, {"modality": 0.0}, {"rescale": 1.1}, {"rescale": -0.1}, {"cfg": "3"}]
)
def test_bad_guidance_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(bad))):
        Guidance(**{"cfg": 1.0, "stg": 0.0, "modality": 1.0, "rescale": 0.0, **bad})


@pytest.mark.parametrize(
    "bad",
    [
        *({"picture": "/etc/passwd"}, {"picture": "sha256:12"}, {"crf": 52}, {"crf": -1}, {"crf": 33.0}),
        *({"height": 0}, {"width": 10**6}, {"strength": 0.0}, {"strength": 1.1}),
    ],
)
def test_a_bad_image_condition_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(bad))):
        ImageCondition(**{**IMAGE, **bad})


def test_a_picture_may_be_a_file_named_by_its_digest() -> None:
    assert ImageCondition(**{**IMAGE, "picture": f"sha256:{'0' * 64}"}).picture.startswith("sha256:")


@pytest.mark.parametrize(
    "bad", [{"sigmas": ()}, {"sigmas": (0.4, 0.9)}, {"sigmas": (1.1,)}, {"lora_first": -0.1}, {"lora_second": 2.1}]
)
def test_a_bad_second_stage_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(bad))):
        SecondStage(**{**SECOND, **bad})


@pytest.mark.parametrize(
    ("rows", "columns", "frames", "words"),
    [
        ((96, 64), None, None, "'columns' is None; expected tiles exactly when rows have some"),
        (None, None, None, "'frames' is None; expected tiles along one axis"),
        ((96, 48), (64, 64), None, r"'rows' is \(96, 48\); expected a size and a stride that are multiples of 32"),
        (None, None, (12, 4), r"'frames' is \(12, 4\); expected a size and a stride that are multiples of 8"),
        (None, None, (8, 16), r"'stride' is 16; expected within \[1, size\], which is 8"),
        (None, None, (8, 0), "'stride' is 0"),
    ],
)
def test_bad_tiles_are_refused(rows: Any, columns: Any, frames: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        VideoTiling(
            **{
                name: pair and Tiles(size=pair[0], stride=pair[1])
                for name, pair in (("rows", rows), ("columns", columns), ("frames", frames))
            }
        )


def test_two_stages_need_sizes_that_halve() -> None:
    request = replace(GUIDED.request, second=SecondStage(**SECOND))
    assert (request.first_size, GUIDED.request.first_size) == ((64, 96), (128, 192))
    with pytest.raises(InputError, match=r"'height' is 160; expected a positive multiple of 64"):
        replace(request, height=160)


def test_a_pipeline_and_its_request_fit() -> None:
    with pytest.raises(InputError, match=r"'request.second' is SecondStage"):
        replace(GUIDED, request=replace(GUIDED.request, second=SecondStage(**SECOND)))
    with pytest.raises(InputError, match=r"'request.second' is None"):
        replace(GUIDED, pipeline="two-stage-t2v")
    with pytest.raises(InputError, match=r"'request.image' is ImageCondition"):
        replace(GUIDED, request=replace(GUIDED.request, image=ImageCondition(**IMAGE)))
    with pytest.raises(InputError, match=r"'request.image' is None"):
        replace(GUIDED, pipeline="one-stage-ti2v")


def test_overrides_and_quantization_are_in_the_id_and_the_digest() -> None:
    tried = replace(GUIDED, overrides=(Override(field="rescale", value="whole-tensor"),), quantization="fp8-cast")
    assert tried.id == f"{GUIDED.id}+fp8-cast+rescale=whole-tensor"
    assert len({case.digest for case in (GUIDED, tried, replace(GUIDED, quantization="none"))}) == 3
    with pytest.raises(InputError, match="every field once"):
        replace(tried, overrides=tried.overrides * 2)
    with pytest.raises(InputError, match="'quantization' is 'int4'"):
        replace(GUIDED, quantization="int4")


def test_only_a_conditioned_first_frame_is_given() -> None:
    assert GUIDED.request.given_frames == ()
    assert replace(GUIDED.request, image=ImageCondition(**IMAGE)).given_frames == (0,)


def test_unknown_and_missing_fields_are_named() -> None:
    data = GUIDED.as_dict()
    with pytest.raises(InputError, match="unknown field 'extra'"):
        Case.from_dict({**data, "extra": 1})
    del data["request"]["seed"]
    with pytest.raises(InputError, match=r"case\.request: missing field 'seed'"):
        Case.from_dict(data)


@given(st.tuples(*[st.integers(1, 9)] * 4), st.booleans())
def test_layout_names_round_trip(sizes: tuple[int, int, int, int], text: bool) -> None:
    layout = Layout(**dict(zip(("tp", "cfg", "ulysses", "ring"), sizes, strict=True)), text=text and sizes[0] > 1)
    assert Layout.parse(layout.name) == layout


def test_the_text_encoder_is_cut_along_an_axis_that_is_there() -> None:
    assert Layout.parse("cfg2-tp2-text").name == "cfg2-tp2-text"
    with pytest.raises(InputError, match="'text' is True; expected false, where tp is 1"):
        Layout.parse("cfg2-text")


@pytest.mark.parametrize("name", ["", "tp", "tp0", "2tp", "tp2+cfg2", "TP2", "text", "tp2-text-cfg2", "tp2-texts"])
def test_bad_layout_names_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="axes such as"):
        Layout.parse(name)


@given(st.text(min_size=1))
def test_slugs_are_safe_folder_names(text: str) -> None:
    name = slug(text)
    assert "/" not in name
    assert not name.startswith(".")
    assert name.isascii()
    assert len(name) < 100


def test_slugs_of_different_ids_differ_even_when_they_read_alike() -> None:
    assert slug("a/b") != slug("a+b")
