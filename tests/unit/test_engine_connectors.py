"""Text connectors against diffusers, and what they refuse."""

from __future__ import annotations

import pytest
import torch
from engine_reference import DIFFUSERS, DTYPES, MODELS, diffusers_connectors, engine_connectors

from conformance.errors import InputError
from conformance.generator import Probe
from engine.numerics import preset
from engine.pipelines.ltx2_inputs import TextStates, contexts


def text(model: str, dtype: torch.dtype, lengths: tuple[int, ...] = (32, 5, 17)) -> tuple[torch.Tensor, torch.Tensor]:
    """Left-padded prompts of different lengths, 32 positions; activations as uneven as those of an encoder."""
    config = engine_connectors(model, dtype).config
    width = config.caption_channels * config.text_proj_in_factor
    generator = torch.Generator().manual_seed(5)
    embeds = torch.randn(len(lengths), 32, width, generator=generator) * 3 + 0.5
    mask = torch.stack([(torch.arange(32) >= 32 - length).long() for length in lengths])
    return embeds.to(dtype), mask


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("model", MODELS)
def test_connectors_are_bitwise_equal(model: str, dtype: torch.dtype) -> None:
    embeds, mask = text(model, dtype)
    with torch.inference_mode():
        video, audio, _ = diffusers_connectors(model, dtype)(embeds, mask)
    ours = engine_connectors(model, dtype)(embeds, mask, DIFFUSERS)
    assert torch.equal(ours[0], video)
    assert torch.equal(ours[1], audio)


@pytest.mark.parametrize("model", MODELS)
def test_padding_has_no_influence(model: str) -> None:
    embeds, mask = text(model, torch.float32)
    changed = torch.where(mask[:, :, None].bool(), embeds, torch.full_like(embeds, 7.0))
    connectors = engine_connectors(model, torch.float32)
    for ours, theirs in zip(connectors(changed, mask, DIFFUSERS), connectors(embeds, mask, DIFFUSERS), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(("numerics", "expected"), [("diffusers", [2]), ("official-1.0.0", [1, 1])])
def test_prompts_are_a_pair_or_have_a_call_each(numerics: str, expected: list[int]) -> None:
    connectors = engine_connectors("ltx-2.3", torch.float32)
    embeds, mask = text("ltx-2.3", torch.float32, (7,))
    batches: list[int] = []
    handle = connectors.video_connector.register_forward_pre_hook(lambda _, args: batches.append(args[0].shape[0]))
    probe = Probe()
    states = {"pos": TextStates(embeds=embeds, mask=mask), "neg": TextStates(embeds=embeds * 0.5, mask=mask)}
    out = contexts(connectors, states, preset(numerics), probe)
    handle.remove()
    assert batches == expected
    assert torch.equal(probe.tensors["connector/neg/audio"], out["neg"]["audio"])
    assert not torch.equal(out["neg"]["audio"], out["pos"]["audio"])


@pytest.mark.parametrize("missing", ["embeds", "mask"])
@pytest.mark.parametrize("prompt", ["pos", "neg"])
def test_missing_embeddings_or_mask(prompt: str, missing: str) -> None:
    embeds, mask = text("ltx-2", torch.float32)
    whole = {"embeds": embeds, "mask": mask}
    states = {"pos": TextStates(**whole), "neg": TextStates(**whole)} | {
        prompt: TextStates(**(whole | {missing: None}))
    }
    with pytest.raises(InputError, match=f"'{missing}' of prompt '{prompt}' is missing"):
        contexts(engine_connectors("ltx-2", torch.float32), states, DIFFUSERS, Probe())


def test_shapes_that_do_not_fit() -> None:
    connectors = engine_connectors("ltx-2", torch.float32)
    embeds, mask = text("ltx-2", torch.float32)
    with pytest.raises(InputError, match=r"'embeds' is .*expected a shape"):
        connectors(embeds[..., :-1], mask, DIFFUSERS)
    with pytest.raises(InputError, match=r"'mask' is .*expected the shape"):
        connectors(embeds, mask[:, :-1], DIFFUSERS)
    with pytest.raises(InputError, match="row without a token"):
        connectors(embeds, torch.zeros_like(mask), DIFFUSERS)
    with pytest.raises(InputError, match="'text_tokens' is 31; expected a multiple of"):
        connectors(embeds[:, 1:], mask[:, 1:], DIFFUSERS)
