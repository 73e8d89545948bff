"""Both vocoders: bitwise against diffusers, alone and after the audio VAE, and what the parts mean."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from audio_reference import VOCODERS, diffusers_vae, diffusers_vocoder, draw, vocoder_folder
from diffusers.pipelines.ltx2.pipeline_ltx2 import LTX2Pipeline
from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder, LTX2VocoderWithBWE
from engine_reference import CPU, DIFFUSERS, DTYPES, MODELS, tiny_case, tiny_request

from conformance.errors import InputError
from conformance.generator import Probe
from engine import components
from engine.configfile import parse_object
from engine.generator import build
from engine.models.ltx2.vocoder import model as vocoder
from engine.models.ltx2.vocoder.bandwidth import BandwidthVocoder, Stft
from engine.models.ltx2.vocoder.config import BandwidthVocoderConfig, VocoderConfig
from engine.models.ltx2.vocoder.resample import hann_raised
from engine.numerics import PRESETS
from engine.pipelines.ltx2_inputs import Latents
from reference_impl.tiny.build import cached
from reference_impl.tiny.vocoder import stft_basis

FP32 = replace(DIFFUSERS, vocoder_dtype="float32")
NAMES = (*MODELS, *VOCODERS)


@cache
def engine_vocoder(name: str, dtype: torch.dtype) -> vocoder.Vocoder:
    return vocoder.load(vocoder_folder(name), dtype, CPU)


def mel_of(name: str, frames: int, dtype: torch.dtype, batch: int = 2) -> torch.Tensor:
    channels = 2 if name in MODELS else 3
    bins = engine_vocoder(name, dtype).config.in_channels if name in MODELS else 12
    return draw(batch, channels, frames, bins // channels, dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_bitwise_equal(name: str, dtype: torch.dtype) -> None:
    model, reference = engine_vocoder(name, dtype), diffusers_vocoder(vocoder_folder(name), dtype)
    for frames in (1, 4, 9):
        mel = mel_of(name, frames, dtype)
        wave = vocoder.waveform(model, mel, DIFFUSERS)
        assert wave.dtype == dtype
        assert float(wave.std()) > 0.03
        assert torch.equal(wave, reference(mel))
        channels = model.config.out_channels
        rate = model.config.ratio if isinstance(model, BandwidthVocoder) else 1
        first = model.vocoder.config if isinstance(model, BandwidthVocoder) else model.config
        assert wave.shape == (2, channels, frames * first.factor * rate)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("model", MODELS)
def test_latents_to_waveform(model: str, dtype: torch.dtype) -> None:
    """What ``LTX2Pipeline`` does after its last step, on packed float32 states of odd and even length."""
    reference_vae = diffusers_vae(cached(model) / "audio_vae", dtype)
    reference_vocoder = diffusers_vocoder(cached(model) / "vocoder", dtype)
    parts = components.load(cached(model), dtype, CPU)
    for length in (3, 6):
        tokens, still = draw(2, length, 128, seed=length), draw(2, 4, 128)
        sizes = Latents(video=(2, 128, 1, 2, 2), audio=(2, 8, length, 16))
        with torch.inference_mode():
            inputs = components.decoder_inputs(parts, still, tokens, sizes, DIFFUSERS)
            wave = components.decode(parts, *inputs, DIFFUSERS)[1]
        stats = (reference_vae.latents_mean, reference_vae.latents_std)
        latents = LTX2Pipeline._unpack_audio_latents(
            LTX2Pipeline._denormalize_audio_latents(tokens, *stats), length, num_mel_bins=16
        )
        mel = reference_vae.decode(latents.to(dtype), return_dict=False)[0]
        assert torch.equal(wave, reference_vocoder(mel))


def test_float32_is_the_vocoder_in_float32_on_rounded_weights() -> None:
    bf16 = torch.bfloat16
    for name in ("ltx-2.3", "extended"):
        mel = mel_of(name, 5, bf16)
        model, stored = engine_vocoder(name, bf16), diffusers_vocoder(vocoder_folder(name), torch.float32)
        before = {key: value.clone() for key, value in model.state_dict().items()}
        wave = vocoder.waveform(model, mel, FP32)
        assert wave.dtype == bf16
        assert torch.equal(wave, stored(mel.float()).to(bf16))  # the files hold bf16
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
        own, wave = vocoder.waveform(model, mel, DIFFUSERS).float(), wave.float()
        assert 1e-3 < float((own - wave).norm() / wave.norm()) < 1e-1
    for name in ("ltx-2", "leaky"):
        mel = mel_of(name, 5, bf16)
        model = engine_vocoder(name, bf16)
        assert torch.equal(vocoder.waveform(model, mel, FP32), vocoder.waveform(model, mel, DIFFUSERS))


def test_the_engine_hands_the_field_on(monkeypatch: pytest.MonkeyPatch) -> None:
    case = tiny_case("ltx-2.3", "bf16", tiny_request())
    engine = build(cached("ltx-2.3"), "cpu")
    own = engine.generate(case, Probe(depth="step"))
    monkeypatch.setitem(PRESETS, case.numerics, lambda: FP32)
    other = engine.generate(case, Probe(depth="step"))
    assert own.audio is not None
    assert other.audio is not None
    assert not np.array_equal(own.audio, other.audio)
    assert np.allclose(own.audio, other.audio, atol=0.1)
    assert all(torch.equal(value, other.latents[name]) for name, value in own.latents.items())
    assert own.audio_rate == other.audio_rate == 48000


def test_the_first_waveform_is_bounded_where_the_configuration_says_so() -> None:
    model = engine_vocoder("extended", torch.float32)
    assert isinstance(model, BandwidthVocoder)
    wave = model.vocoder(mel_of("extended", 9, torch.float32))
    assert float(wave.abs().max()) == 1.0
    assert float(wave.abs().mean()) < 0.9


def test_stft_is_causal() -> None:
    stft = Stft(64, 16)
    stft.forward_basis.copy_(stft_basis(64))
    wave = draw(2, 160)
    window = torch.hann_window(64)
    for frame, magnitude in enumerate(stft(wave).unbind(-1)):
        end = 16 * (frame + 1)
        seen = torch.nn.functional.pad(wave, (64, 0))[:, end : end + 64]
        assert torch.allclose(magnitude, torch.fft.rfft(seen * window).abs(), atol=1e-4)


def test_resampling_keeps_a_tone() -> None:
    """Well below the lower Nyquist rate, away from the ends."""
    for ratio in (2, 3):
        coarse, fine = (torch.sin(2 * math.pi * 0.06 * torch.arange(90.0 * r) / r) for r in (1, ratio))
        raised = hann_raised(coarse.view(1, 1, -1), ratio, torch.float32).flatten()
        assert raised.shape == fine.shape
        assert torch.allclose(raised[60:-60], fine[60:-60], atol=1e-2)


@pytest.mark.parametrize("cls", [LTX2Vocoder, LTX2VocoderWithBWE])
def test_tensors_of_the_released_size(cls: Any) -> None:
    with torch.device("meta"):
        reference = cls()
        kind = VocoderConfig if cls is LTX2Vocoder else BandwidthVocoderConfig
        config = parse_object(kind, dict(reference.config), "defaults", fixed={})
        config.check("defaults")
        ours = vocoder.build(config).state_dict()
    assert {name: value.shape for name, value in ours.items()} == {
        name: value.shape for name, value in reference.state_dict().items()
    }


def test_other_shapes() -> None:
    model = engine_vocoder("leaky", torch.float32)
    for shape in ((1, 3, 4), (1, 3, 4, 5)):
        with pytest.raises(InputError, match=r"'mel' is .*; expected a shape .* with 12 bins of all channels"):
            vocoder.waveform(model, torch.zeros(shape), DIFFUSERS)
