"""CLIP image-image similarity, with weights the user has. Nothing here is imported until a scorer is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from conformance.errors import InputError, bad_field
from conformance.metrics.pairs import FramePair
from conformance.metrics.registry import register

if TYPE_CHECKING:
    import numpy as np

NO_WEIGHTS = "no CLIP weights were given (MODEL:FILE.safetensors or MODEL:TAG)"


class ClipScorer:
    """A pretrained CLIP image tower in fp32 on the CPU, with open_clip's own preprocessing.

    label: model and weights, for the record. model: maps a batch [1,3,S,S] to an embedding [1,D].
    preprocess: maps a PIL image to [3,S,S].
    """

    def __init__(self, label: str, model: Any, preprocess: Any) -> None:
        self.label, self._model, self._preprocess = label, model, preprocess

    @classmethod
    def load(cls, spec: str | None) -> ClipScorer | None:
        """Load ``MODEL:PATH.safetensors`` (a local file) or ``MODEL:TAG`` (a pretrained tag of open_clip, from the
        local cache or the hub). None stays None: CLIP is then not measured.

        InputError when the model, tag or file is unknown, does not fit the model or cannot be fetched; weights
        are never left at their random initial values.
        """
        if spec is None:
            return None
        name, _, weights = spec.partition(":")
        if not name or not weights:
            raise bad_field("clip", "spec", spec, "MODEL:FILE.safetensors or MODEL:TAG")
        is_file = "/" in weights or Path(weights).suffix != "" or Path(weights).exists()
        if is_file and Path(weights).suffix != ".safetensors":
            raise bad_field("clip", "weights", weights, "a .safetensors file")
        if is_file and not Path(weights).is_file():
            raise bad_field("clip", "weights", weights, "an existing file")

        from conformance import guard

        guard.install()
        import open_clip

        if name not in open_clip.list_models():
            raise bad_field("clip", "model", name, f"a model of open_clip, such as {open_clip.list_models()[:3]}")
        tags = open_clip.list_pretrained_tags_by_model(name)
        if not is_file and weights not in tags:
            raise bad_field("clip", "tag", weights, f"one of {tags}")
        quick_gelu = not is_file and bool(open_clip.get_pretrained_cfg(name, weights).get("quick_gelu"))
        try:
            model, _, preprocess = open_clip.create_model_and_transforms(
                name, pretrained=weights, precision="fp32", device="cpu", force_quick_gelu=quick_gelu
            )
        except Exception as error:  # open_clip, safetensors and the hub client each raise their own
            why = " ".join(str(error).split())[:300]
            raise InputError(f"clip: weights {weights!r} cannot be loaded into {name!r}: {why}") from None
        return cls(spec, model.eval(), preprocess)

    def similarity(self, candidate: np.ndarray, reference: np.ndarray) -> float:
        """Cosine of the image embeddings of two uint8 frames [H,W,3]."""
        import torch
        from PIL import Image

        with torch.no_grad():
            pixels = [self._preprocess(Image.fromarray(frame)) for frame in (candidate, reference)]
            a_D, b_D = (self._model.encode_image(image[None])[0].double() for image in pixels)
            return float(torch.nn.functional.cosine_similarity(a_D, b_D, dim=0))


@register("clip", kind="frame", better="higher")
def clip(pair: FramePair) -> float:
    """Cosine of the CLIP image embeddings (Radford et al. 2021) of the two frames. Not measured without weights."""
    if pair.clip is None:
        raise InputError(NO_WEIGHTS)
    return pair.clip.similarity(pair.candidate, pair.reference)
