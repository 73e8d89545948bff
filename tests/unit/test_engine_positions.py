"""Token positions and packing against diffusers and against numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers import LTX2Pipeline
from engine_reference import CPU, DIFFUSERS, diffusers_dit, engine_dit

from engine.models.ltx2 import positions

CONFIG = engine_dit("ltx-2", torch.float32).config


@pytest.mark.parametrize("frame_rate", [24.0, 25.0, 50.0, 23.976])
def test_bounds_are_bitwise_equal(frame_rate: float) -> None:
    dit = diffusers_dit("ltx-2", torch.float32)
    video = positions.video_bounds((4, 3, 5), frame_rate, 2, CONFIG, CPU)
    assert torch.equal(video, dit.rope.prepare_video_coords(2, 4, 3, 5, CPU, fps=frame_rate))
    assert torch.equal(positions.audio_bounds(77, 2, CONFIG, CPU), dit.audio_rope.prepare_audio_coords(2, 77, CPU))


def test_bounds_by_hand() -> None:
    """Latent 0 is one pixel frame, every later one is 8; an audio latent is 4 hops of 10 ms, the first is 1."""
    video = positions.video_bounds((2, 1, 2), 8.0, 1, CONFIG, CPU)
    assert video[0, 0].tolist() == [[0.0, 0.125], [0.0, 0.125], [0.125, 1.125], [0.125, 1.125]]
    assert video[0, 2].tolist() == [[0.0, 32.0], [32.0, 64.0]] * 2
    audio = positions.audio_bounds(3, 1, CONFIG, CPU)
    assert torch.allclose(audio[0, 0], torch.tensor([[0.0, 0.01], [0.01, 0.05], [0.05, 0.09]]), rtol=0, atol=1e-9)


def test_packing_is_the_pipelines() -> None:
    generator = torch.Generator().manual_seed(0)
    video = torch.randn((2, 6, 3, 4, 5), generator=generator)
    audio = torch.randn((2, 8, 7, 16), generator=generator)
    for token_memory in ("view", "copy"):
        packed = positions.pack_video(video, replace(DIFFUSERS, token_memory=token_memory))
        assert torch.equal(packed, LTX2Pipeline._pack_latents(video))
        assert torch.equal(positions.unpack_video(packed, (3, 4, 5)), video)
        assert packed.is_contiguous() == (token_memory == "copy")
    assert positions.pack_video(video, DIFFUSERS).stride() == LTX2Pipeline._pack_latents(video).stride()
    tokens = positions.pack_audio(audio)
    assert torch.equal(tokens, LTX2Pipeline._pack_audio_latents(audio))
    assert torch.equal(positions.unpack_audio(tokens, 16), audio)
