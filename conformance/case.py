"""Case and Request: everything that can change a bit of output, and nothing else.

None of these classes has a default: what a case does not say, no engine may fill in. They are frozen,
validated on construction, hashable, and round trip through JSON (``as_dict`` / ``from_dict``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from conformance.checked import Checked
from conformance.errors import bad_field
from conformance.jsonio import digest
from conformance.layout import Layout
from conformance.tiling import VideoTiling

DTYPES = ("fp32", "bf16")
KERNELS = ("off", "on")
PICTURES = ("blocks", "rings")
QUANTIZATIONS = ("checkpoint", "none", "fp8-cast")
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]*")


@dataclass(frozen=True, kw_only=True)
class Guidance(Checked):
    """Guidance of one modality. 1.0 turns ``cfg`` and ``modality`` off, 0.0 turns ``stg`` and ``rescale`` off."""

    cfg: float
    stg: float
    modality: float
    rescale: float

    def _validate(self, where: str) -> None:
        for name, low in (("cfg", 1.0), ("stg", 0.0), ("modality", 1.0)):
            if getattr(self, name) < low:
                raise bad_field(where, name, getattr(self, name), f"at least {low}")
        if not 0.0 <= self.rescale <= 1.0:
            raise bad_field(where, "rescale", self.rescale, "within [0, 1]")


@dataclass(frozen=True, kw_only=True)
class ImageCondition(Checked):
    """A given first frame, one picture for all outputs.

    picture: name of one that the harness draws (``PICTURES``), or ``sha256:`` and the digits of a file that the run was
    given (``conformance.inputs.read_picture``). height, width: its own size in pixels; every engine fits it to the size
    it generates. crf: quality of the H.264 encoding it passes through before the VAE, as the models were trained; 0 is
    none. strength: 1.0 holds the frame as it is; below, it is denoised from that share of the noise level.
    """

    picture: str
    height: int
    width: int
    crf: int
    strength: float

    def _validate(self, where: str) -> None:
        if self.picture not in PICTURES and not re.fullmatch("sha256:[0-9a-f]{64}", self.picture):
            raise bad_field(where, "picture", self.picture, f"one of {PICTURES}, or sha256: and 64 digits")
        for name in ("height", "width"):
            if not 1 <= getattr(self, name) <= 16384:
                raise bad_field(where, name, getattr(self, name), "within [1, 16384]")
        if not 0 <= self.crf <= 51:
            raise bad_field(where, "crf", self.crf, "within [0, 51]")
        if not 0.0 < self.strength <= 1.0:
            raise bad_field(where, "strength", self.strength, "within (0, 1]")


@dataclass(frozen=True, kw_only=True)
class SecondStage(Checked):
    """Refinement of a clip that was first generated at half its height and width, and then upsampled.

    sigmas: the noise levels of its steps (the final 0 is implied); the first is also the share of noise that the
    upsampled latents start from. Only the positive prompt is used, without guidance. lora_first, lora_second: strengths
    at which the checkpoint's distilled LoRA is merged into the weights of each stage; 0.0 leaves them as they are.
    """

    sigmas: tuple[float, ...]
    lora_first: float
    lora_second: float

    def _validate(self, where: str) -> None:
        if not self.sigmas:
            raise bad_field(where, "sigmas", self.sigmas, "at least one level")
        check_sigmas(where, self.sigmas)
        for name in ("lora_first", "lora_second"):
            if not 0.0 <= getattr(self, name) <= 2.0:
                raise bad_field(where, name, getattr(self, name), "within [0, 2]")


def check_sigmas(where: str, sigmas: tuple[float, ...]) -> None:
    """InputError unless the levels fall strictly within (0, 1]."""
    falling = all(a > b for a, b in zip(sigmas, (*sigmas[1:], 0.0), strict=True))
    if not falling or sigmas[0] > 1.0:
        raise bad_field(where, "sigmas", sigmas, "strictly falling within (0, 1]")


@dataclass(frozen=True, kw_only=True)
class Request(Checked):
    """What to generate. One output per entry of ``prompts``.

    height, width: pixels of the output. num_frames: 8k+1. frame_rate: frames per second. text_tokens: length that
    prompts are padded to. sigmas: the N noise levels of the N steps (the final 0 is implied), or None: each side builds
    its own schedule for ``steps`` and the two must agree bit for bit. stg_blocks: block indices that STG perturbs.
    skip_v2a: leave out video-to-audio cross attention in every block, as older ground truth was made.
    image: what conditions the first frame, or None. second: the second stage, or None; the first then generates
    half the height and width with everything above. vae_tiling: tiles that the video is decoded in, or None: in one
    piece.
    """

    prompts: tuple[str, ...]
    negative_prompts: tuple[str, ...]
    height: int
    width: int
    num_frames: int
    frame_rate: float
    steps: int
    sigmas: tuple[float, ...] | None
    seed: int
    text_tokens: int
    video_guidance: Guidance
    audio_guidance: Guidance
    stg_blocks: tuple[int, ...]
    skip_v2a: bool
    image: ImageCondition | None
    second: SecondStage | None
    vae_tiling: VideoTiling | None

    def _validate(self, where: str) -> None:
        if not self.prompts:
            raise bad_field(where, "prompts", self.prompts, "at least one prompt")
        if len(self.negative_prompts) != len(self.prompts):
            raise bad_field(where, "negative_prompts", self.negative_prompts, f"{len(self.prompts)} of them")
        unit = 32 if self.second is None else 64
        for name in ("height", "width"):
            value = getattr(self, name)
            if value <= 0 or value % unit:
                raise bad_field(where, name, value, f"a positive multiple of {unit}")
        if self.num_frames < 1 or self.num_frames % 8 != 1:
            raise bad_field(where, "num_frames", self.num_frames, "8k+1 (1, 9, 17, ...)")
        if self.frame_rate <= 0:
            raise bad_field(where, "frame_rate", self.frame_rate, "positive")
        for name in ("steps", "text_tokens"):
            if getattr(self, name) < 1:
                raise bad_field(where, name, getattr(self, name), "at least 1")
        if not 0 <= self.seed < 2**63:
            raise bad_field(where, "seed", self.seed, "within [0, 2**63)")
        if self.sigmas is not None:
            if len(self.sigmas) != self.steps:
                raise bad_field(where, "sigmas", self.sigmas, f"{self.steps} values, one a step")
            check_sigmas(where, self.sigmas)
        stg = self.video_guidance.stg > 0 or self.audio_guidance.stg > 0
        if stg != bool(self.stg_blocks):
            raise bad_field(where, "stg_blocks", self.stg_blocks, "blocks exactly when an stg scale is above 0")
        if any(block < 0 for block in self.stg_blocks):
            raise bad_field(where, "stg_blocks", self.stg_blocks, "block indices from 0")

    @property
    def given_frames(self) -> tuple[int, ...]:
        """Frames that are an input: an engine that returns them well has shown nothing, so they are not judged."""
        return () if self.image is None else (0,)

    @property
    def first_size(self) -> tuple[int, int]:
        """Height and width in pixels that the first or only stage generates."""
        part = 1 if self.second is None else 2
        return self.height // part, self.width // part


@dataclass(frozen=True, kw_only=True)
class Override(Checked):
    """One rounding decision that departs from the case's preset: a field of ``Numerics`` and its value."""

    field: str
    value: str


@dataclass(frozen=True, kw_only=True)
class Case(Checked):
    """One point of the matrix: model, pipeline, variant, layout, rounding decisions, dtype and request.

    numerics: the name of a preset of ``engine.numerics``, which is also the reference it claims to match.
    overrides: the engine's departures from it, to try them out; the reference knows nothing of them. dtype: compute
    dtype of weights and activations. quantization: how the DiT's weights are stored, ``checkpoint`` being what the
    checkpoint says. kernels: ``on`` lets fused kernels take the place of the eager operations they are bitwise equal
    to, where they can run. checkpoint: name of a checkpoint the project builds (``tiny``); ``--checkpoint`` replaces
    it. suites: the suites the case runs in.
    """

    model: str
    pipeline: str
    variant: str
    layout: Layout
    numerics: str
    overrides: tuple[Override, ...]
    dtype: str
    quantization: str
    kernels: str
    checkpoint: str
    request: Request
    suites: tuple[str, ...]

    def _validate(self, where: str) -> None:
        for name in ("model", "pipeline", "variant", "numerics", "checkpoint"):
            if not _NAME.fullmatch(getattr(self, name)):
                raise bad_field(where, name, getattr(self, name), "lower-case letters, digits, '.' and '-'")
        if self.dtype not in DTYPES:
            raise bad_field(where, "dtype", self.dtype, f"one of {DTYPES}")
        for name, known in (("kernels", KERNELS), ("quantization", QUANTIZATIONS)):
            if getattr(self, name) not in known:
                raise bad_field(where, name, getattr(self, name), f"one of {known}")
        names = [override.field for override in self.overrides]
        if len(set(names)) < len(names):
            raise bad_field(where, "overrides", names, "every field once")
        two_stages = self.pipeline.startswith("two-stage")
        if two_stages != (self.request.second is not None):
            expected = "a second stage exactly in a two-stage pipeline"
            raise bad_field(where, "request.second", self.request.second, f"{expected} ({self.pipeline})")
        for ending, image in (("-t2v", False), ("-ti2v", True)):
            if self.pipeline.endswith(ending) and image != (self.request.image is not None):
                expected = f"a picture exactly in a pipeline '...-ti2v' ({self.pipeline})"
                raise bad_field(where, "request.image", self.request.image, expected)

    @property
    def id(self) -> str:
        """``<model>/<pipeline>/<variant>@<layout>+<numerics>-<dtype>``.

        Then, where they are not the usual ones, ``+<quantization>``, ``+kernels``, ``+<field>=<value>`` and, for a
        picture that was given as a file, ``+image=<first digits>``: limits are those of one picture.
        """
        parts = [f"{self.model}/{self.pipeline}/{self.variant}@{self.layout.name}+{self.numerics}-{self.dtype}"]
        parts += [self.quantization] if self.quantization != "checkpoint" else []
        parts += ["kernels"] if self.kernels == "on" else []
        parts += [f"{override.field}={override.value}" for override in self.overrides]
        picture = "" if self.request.image is None else self.request.image.picture
        parts += [f"image={picture[7:15]}"] if picture.startswith("sha256:") else []
        return "+".join(parts)

    @cached_property
    def digest(self) -> str:
        """sha256 over everything that can change a bit of output (suites cannot)."""
        data = self.as_dict()
        del data["suites"]
        return digest(data)

    @property
    def axes(self) -> dict[str, str]:
        """What reports filter by."""
        return {
            "model": self.model,
            "pipeline": self.pipeline,
            "variant": self.variant,
            "layout": self.layout.name,
            "numerics": self.numerics,
            "dtype": self.dtype,
            "quantization": self.quantization,
            "kernels": self.kernels,
        }


def slug(case_id: str) -> str:
    """A case id as a folder name: readable, portable, unique through eight digits of its sha256."""
    return f"{re.sub(r'[^A-Za-z0-9.]+', '-', case_id).strip('-.')[:80]}-{digest(case_id)[:8]}"
