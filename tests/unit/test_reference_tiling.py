"""The diffusers reference decodes in the tiles that are asked for, is tapped as a whole, and is left as it was."""

from __future__ import annotations

import torch
from video_vae_reference import diffusers_vae, draw

from conformance.generator import Probe
from conformance.tiling import Tiles, VideoTiling
from reference_impl.diffusers_tiling import decoding

SPACE = Tiles(size=64, stride=32)
TILING = VideoTiling(rows=SPACE, columns=SPACE, frames=Tiles(size=8, stride=8))


@torch.inference_mode()
def test_tiles_are_those_of_one_decode() -> None:
    vae = diffusers_vae("ltx-2.3", torch.float32)
    latents = draw(1, vae.config.latent_channels, 3, 4, 4)
    before = {name: value for name, value in vars(vae).items() if name.startswith(("use_", "tile_"))}
    whole = vae.decode(latents, return_dict=False)[0]
    probe = Probe()
    with decoding(vae, TILING, probe):
        tiled = vae.decode(latents, return_dict=False)[0]
    assert tiled.shape == whole.shape
    assert not torch.equal(tiled, whole)
    assert torch.equal(probe.tensors["latents/decode/video"], latents)
    assert torch.equal(probe.tensors["vae/frames"], tiled)
    assert {name: getattr(vae, name) for name in before} == before
    assert torch.equal(vae.decode(latents, return_dict=False)[0], whole)
    probe = Probe()
    with decoding(vae, None, probe):
        vae.decode(latents, return_dict=False)
    assert torch.equal(probe.tensors["vae/frames"], whole)
