"""Video VAE: encoding, decoding and statistics bit-equal to diffusers, and what they refuse."""

from __future__ import annotations

import pytest
import torch
from diffusers.pipelines.ltx2 import LTX2ImageToVideoPipeline, LTX2Pipeline
from video_vae_reference import MODELS, diffusers_vae, draw, engine_vae

from conformance.errors import InputError
from engine.models.ltx2.video_vae.layers import (
    Conv,
    depth_to_space,
    patchify,
    pixel_norm,
    space_to_depth,
    unpatchify,
)
from engine.models.ltx2.video_vae.model import decode, denormalise, encode, normalise

DTYPES = (torch.float32, torch.bfloat16)


@pytest.mark.parametrize("shape_BFHW", [(1, 1, 2, 2), (1, 3, 3, 2), (2, 2, 2, 5)])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("model", MODELS)
def test_decode_is_bitwise_equal(model: str, dtype: torch.dtype, shape_BFHW: tuple[int, ...]) -> None:
    vae, (batch, frames, rows, columns) = engine_vae(model, dtype), shape_BFHW
    latents = draw(batch, vae.config.latent_channels, frames, rows, columns).to(dtype)
    ours = decode(vae, latents, None)
    time, space = vae.config.temporal_compression_ratio, vae.config.spatial_compression_ratio
    assert ours.shape == (batch, 3, (frames - 1) * time + 1, rows * space, columns * space)
    assert ours.dtype == dtype
    assert float(ours.float().std()) > 0.01
    assert torch.equal(ours, diffusers_vae(model, dtype).decode(latents, return_dict=False)[0])


@pytest.mark.parametrize("shape_BFHW", [(1, 0, 2, 2), (2, 2, 3, 2), (1, 1, 2, 5)])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("model", MODELS)
def test_encode_is_bitwise_equal(model: str, dtype: torch.dtype, shape_BFHW: tuple[int, ...]) -> None:
    vae, (batch, chunks, rows, columns) = engine_vae(model, dtype), shape_BFHW
    time, space = vae.config.temporal_compression_ratio, vae.config.spatial_compression_ratio
    pixels = draw(batch, 3, chunks * time + 1, rows * space, columns * space).mul(0.4).clamp(-1, 1).to(dtype)
    ours = encode(vae, pixels)
    assert ours.shape == (batch, vae.config.latent_channels, chunks + 1, rows, columns)
    assert float(ours.float().std()) > 0.01
    assert torch.equal(ours, diffusers_vae(model, dtype).encode(pixels).latent_dist.mode())


@pytest.mark.parametrize("latents_dtype", DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("model", MODELS)
def test_statistics_are_applied_in_the_dtype_of_the_latents(
    model: str, dtype: torch.dtype, latents_dtype: torch.dtype
) -> None:
    vae = engine_vae(model, dtype)
    latents = draw(2, vae.config.latent_channels, 2, 3, 2).to(latents_dtype)
    stats = (vae.latents_mean, vae.latents_std, vae.config.scaling_factor)
    assert torch.equal(denormalise(vae, latents), LTX2Pipeline._denormalize_latents(latents, *stats))
    assert torch.equal(normalise(vae, latents), LTX2ImageToVideoPipeline._normalize_latents(latents, *stats))
    assert denormalise(vae, latents).dtype == latents_dtype
    back = normalise(vae, denormalise(vae, latents.double()))
    assert torch.allclose(back, latents.double(), rtol=0, atol=1e-12)


def test_pixel_norm() -> None:
    x = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1, 1)
    expected = torch.tensor([3.0, 4.0], dtype=torch.float64) / (12.5 + 1e-8) ** 0.5
    assert torch.allclose(pixel_norm(x).flatten().double(), expected, atol=1e-7)
    assert torch.equal(pixel_norm(torch.zeros_like(x)), torch.zeros_like(x))


def test_rearrangements_name_each_place() -> None:
    """Each value says where it is: channels are (c, t, p, q), those of patches (c, column, row)."""
    b, c, f, h, w = torch.meshgrid(*map(torch.arange, (2, 3, 4, 6, 8)), indexing="ij")
    x = ((b * 3 + c) * 4 + f) * 48 + h * 8 + w
    blocks = space_to_depth(x, (2, 3, 4))
    assert blocks.shape == (2, 72, 2, 2, 2)
    assert int(blocks[1, ((2 * 2 + 1) * 3 + 2) * 4 + 3, 1, 0, 1]) == int(x[1, 2, 3, 2, 7])
    assert torch.equal(depth_to_space(blocks, (2, 3, 4)), x)
    patches = patchify(x, 2)
    assert patches.shape == (2, 12, 4, 3, 4)
    assert int(patches[1, (2 * 2 + 1) * 2 + 0, 3, 2, 1]) == int(x[1, 2, 3, 4, 3])
    assert torch.equal(unpatchify(patches, 2), x)


@pytest.mark.parametrize(("causal", "seen"), [(True, {2, 3, 4}), (False, {1, 2, 3})])
def test_a_causal_convolution_sees_no_later_frame(causal: bool, seen: set[int]) -> None:
    conv = Conv(1, 1, causal=causal, padding="zeros")
    torch.nn.init.ones_(conv.conv.weight)
    x = torch.zeros(1, 1, 6, 3, 3)
    x[:, :, 2] = 1.0
    out = (conv(x) - conv(torch.zeros_like(x))).detach()
    assert {frame for frame in range(6) if out[0, 0, frame].abs().sum() > 0} == seen


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 9, 64, 64), r"'pixels' is \(3, 9, 64, 64\); expected a shape \[B, 3, 8\*k \+ 1, 32\*m, 32\*n\]"),
        ((1, 3, 8, 64, 64), "'pixels'"),
        ((1, 4, 9, 64, 64), "'pixels'"),
        ((1, 3, 9, 48, 64), "'pixels'"),
        ((1, 3, 9, 64, 48), "'pixels'"),
        ((1, 3, 9, 0, 64), "'pixels'"),
    ],
)
def test_pixels_that_do_not_fit(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        encode(engine_vae("ltx-2", torch.float32), torch.zeros(shape))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((128, 2, 2, 2), r"'latents' is \(128, 2, 2, 2\); expected a shape \[B, 128, F, H, W\]"),
        ((1, 127, 2, 2, 2), "'latents'"),
        ((1, 128, 0, 2, 2), "'latents'"),
        ((1, 128, 1, 1, 2), "at least two rows and columns, to be padded by reflection"),
        ((1, 128, 1, 2, 1), "at least two rows and columns"),
    ],
)
def test_latents_that_do_not_fit(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        decode(engine_vae("ltx-2", torch.float32), torch.zeros(shape), None)


def test_one_row_is_enough_for_borders_of_zeros() -> None:
    vae = engine_vae("ltx-2.3", torch.float32)
    latents = draw(1, 128, 1, 1, 1)
    expected = diffusers_vae("ltx-2.3", torch.float32).decode(latents, return_dict=False)[0]
    assert torch.equal(decode(vae, latents, None), expected)
