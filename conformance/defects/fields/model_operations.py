"""Operations of the models that read one field of ``Numerics``, alone and on random inputs.

An operation takes the numerics and the compute dtype and returns numbers of any shape. Inputs are normal numbers, so
that halves of an ulp matter, rounded to the compute dtype.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from types import SimpleNamespace
from typing import Any

import torch

from conformance.generator import Probe
from conformance.inputs import draw_picture
from engine import components, image
from engine.autocast import autocast
from engine.backends import attend
from engine.frames import to_bytes
from engine.layers.norm import QKNorm, block_norm, layer_norm, rms_norm
from engine.layers.rope import frequency_grid, midpoints, sequence_rotary
from engine.models.ltx2 import positions, weights
from engine.models.ltx2.audio_vae import model as audio_vae
from engine.models.ltx2.config import ConnectorsConfig, TransformerConfig
from engine.models.ltx2.connectors import LTX2Connectors, token_norm
from engine.models.ltx2.transformer import LTX2Transformer
from engine.models.ltx2.video_vae import model as video_vae
from engine.models.ltx2.vocoder import model as vocoder
from engine.models.ltx2.vocoder.bandwidth import BandwidthVocoder
from engine.numerics import Numerics
from engine.parallel.tensor import finished, product
from engine.pipelines.ltx2_inputs import Latents, TextStates, contexts
from reference_impl.tiny.build import cached

Operation = Callable[[Numerics, torch.dtype], torch.Tensor]
CPU = torch.device("cpu")
SIZES = Latents(video=(1, 128, 2, 2, 3), audio=(1, 8, 7, 16))


def draw(dtype: torch.dtype, *shape: int, seed: int = 0) -> torch.Tensor:
    """Seeded normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@cache
def dit(dtype: torch.dtype) -> LTX2Transformer:
    """The tiny LTX-2.3 DiT."""
    folder = cached("ltx-2.3") / "transformer"
    return weights.load(partial(LTX2Transformer, TransformerConfig.load(folder)), folder, dtype, CPU)


@cache
def _connectors(dtype: torch.dtype) -> LTX2Connectors:
    folder = cached("ltx-2.3") / "connectors"
    return weights.load(partial(LTX2Connectors, ConnectorsConfig.load(folder)), folder, dtype, CPU)


def grid(numerics: Numerics, dtype: torch.dtype) -> torch.Tensor:
    return frequency_grid(682, 1e4, numerics, CPU)


def rotation(numerics: Numerics, dtype: torch.dtype) -> torch.Tensor:
    tables = sequence_rotary(64, 4096, dim=64, heads=4, theta=1e4, numerics=numerics, device=CPU)
    return tables.apply(draw(dtype, 1, 64, 64))


def middles(numerics: Numerics, dtype: torch.dtype) -> torch.Tensor:
    bounds = positions.video_bounds((9, 2, 2), 24.0, 1, dit(dtype).config, CPU)
    return midpoints(positions.rounded(bounds, dtype, numerics))


def timestep_head(numerics: Numerics, dtype: torch.dtype) -> torch.Tensor:
    """AdaLN rows of one noise level, for the batch or for each of 45 tokens."""
    level = torch.tensor([731.7])
    times = level[:, None].expand(-1, 45) if numerics.timestep_shape == "token" else level
    return dit(dtype).time_embed(times, dtype)[0].expand(1, 45, -1)


def attention(numerics: Numerics, dtype: torch.dtype, *, mask: str = "none") -> torch.Tensor:
    q, k, v = (draw(dtype, 1, 64, 4, 32, seed=seed) for seed in range(3))
    zeros = torch.zeros(1, 64, dtype=dtype) if mask == "zeros" else None
    return attend(q, k, v, zeros, numerics.attention)


def text_attention(numerics: Numerics, dtype: torch.dtype) -> torch.Tensor:
    return attention(numerics, dtype, mask=numerics.text_mask)


def connector_attention(numerics: Numerics, dtype: torch.dtype) -> torch.Tensor:
    return attention(numerics, dtype, mask=numerics.connector_mask)


def connectors(numerics: Numerics, dtype: torch.dtype) -> torch.Tensor:
    """Both prompts through both connectors."""
    model = _connectors(dtype)
    width = model.config.caption_channels * model.config.text_proj_in_factor
    length = model.config.video_connector_num_learnable_registers
    mask = torch.ones(1, length, dtype=torch.int64)
    text = {
        prompt: TextStates(embeds=draw(dtype, 1, length, width, seed=seed), mask=mask)
        for seed, prompt in enumerate(("pos", "neg"))
    }
    out = contexts(model, text, numerics, Probe(depth="step"))
    return torch.cat([out[prompt][stream].flatten() for prompt in ("pos", "neg") for stream in ("video", "audio")])


def text_norm(numerics: Numerics, dtype: torch.dtype) -> torch.Tensor:
    return token_norm(draw(dtype, 2, 16, 64, 8), torch.ones(2, 16, dtype=torch.bool), numerics)


def state_norm(numerics: Numerics, dtype: torch.dtype) -> torch.Tensor:
    return block_norm(draw(dtype, 1, 64, 256), 1e-6, numerics)


def query_norm(numerics: Numerics, dtype: torch.dtype) -> torch.Tensor:
    norm = QKNorm(256, eps=1e-6).to(dtype)
    norm.weight.data = (1 + 0.1 * draw(torch.float32, 256, seed=1)).to(dtype)
    return norm(draw(dtype, 64, 256), numerics)


def row_products(numerics: Numerics, dtype: torch.dtype) -> torch.Tensor:
    """A linear layer over two ranks, both of them here."""
    x, weight, bias = draw(dtype, 64, 256), draw(dtype, 32, 256, seed=1), draw(dtype, 32, seed=2)
    shares = zip(x.chunk(2, dim=1), weight.chunk(2, dim=1), strict=True)
    first, second = (product(part, columns.contiguous(), numerics) for part, columns in shares)
    return finished(first + second, bias, dtype)


def perturbed_attention(numerics: Numerics, dtype: torch.dtype) -> torch.Tensor:
    layer = dit(dtype).transformer_blocks[0].get_submodule("attn1")
    return layer(draw(dtype, 1, 16, dit(dtype).config.width), values_only=True, numerics=numerics)


def norms_under_autocast(numerics: Numerics, dtype: torch.dtype) -> torch.Tensor:
    """What the DiT does between matrix products, which autocast may run in another dtype."""
    x = draw(dtype, 64, 256)
    with autocast(x, numerics):
        y = layer_norm(x, 1e-6) * (1 + x) + rms_norm(x, 1e-6)
        return torch.nn.functional.gelu(y, approximate="tanh") + torch.softmax(y, -1) + y.sum(-1, keepdim=True)


def patchified(numerics: Numerics, dtype: torch.dtype) -> torch.Tensor:
    return dit(dtype).proj_in(positions.pack_video(draw(torch.float32, *SIZES.video), numerics).to(dtype))


def audio_statistics(numerics: Numerics, dtype: torch.dtype) -> torch.Tensor:
    folder = cached("ltx-2.3")
    parts: Any = SimpleNamespace(
        vae=video_vae.load(folder / "vae", dtype, CPU), audio_vae=audio_vae.load(folder / "audio_vae", dtype, CPU)
    )
    tokens = (draw(dtype, 1, 12, 128).float(), draw(dtype, 1, 7, 128).float())
    return components.decoder_inputs(parts, *tokens, SIZES, numerics)[1]


def frame_bytes(numerics: Numerics, dtype: torch.dtype) -> torch.Tensor:
    return torch.from_numpy(to_bytes(draw(dtype, 64, 64).sigmoid().float().numpy(), numerics))


def _vocoder(dtype: torch.dtype) -> BandwidthVocoder:
    model = vocoder.load(cached("ltx-2.3") / "vocoder", dtype, CPU)
    assert isinstance(model, BandwidthVocoder)
    return model


def _sound(model: BandwidthVocoder, numerics: Numerics, dtype: torch.dtype) -> torch.Tensor:
    return vocoder.waveform(model, draw(dtype, 1, 2, 3, 64), numerics)


def waveform(numerics: Numerics, dtype: torch.dtype) -> torch.Tensor:
    return _sound(_vocoder(dtype), numerics, dtype)


def loud_waveform(numerics: Numerics, dtype: torch.dtype) -> torch.Tensor:
    """The first stage leaves [-1,1], as it hardly does on its own."""
    model = _vocoder(dtype)
    model.vocoder.conv_out.weight.mul_(20)
    return _sound(model, numerics, dtype)


def resampled(numerics: Numerics, dtype: torch.dtype) -> torch.Tensor:
    """The second stage is silent, which leaves the resampled first one alone."""
    model = _vocoder(dtype)
    model.bwe_generator.conv_out.weight.zero_()
    return _sound(model, numerics, dtype)


def fitted_picture(numerics: Numerics, dtype: torch.dtype) -> torch.Tensor:
    """A picture of another size and shape."""
    return image.fitted(draw_picture("rings", 100, 90), 64, 96, numerics, CPU).to(dtype)


def picture_latents(numerics: Numerics, dtype: torch.dtype) -> torch.Tensor:
    parts: Any = SimpleNamespace(vae=video_vae.load(cached("ltx-2.3") / "vae", dtype, CPU))
    return components.encode_image(parts, draw(dtype, 1, 3, 1, 64, 96), numerics)
