"""The vocoder's spectral constants against other implementations of their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers.audio_utils import mel_filter_bank

from reference_impl.tiny.vocoder import mel_basis, stft_basis


def test_stft_basis_is_a_windowed_dft() -> None:
    signal = torch.randn(3, 512, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    window = torch.hann_window(512, periodic=True, dtype=torch.float64)
    expected = torch.fft.rfft(signal * window)
    rows = (signal @ stft_basis(512)[:, 0].T).unflatten(1, (2, 257))
    assert torch.allclose(rows[:, 0], expected.real, atol=1e-10)
    assert torch.allclose(rows[:, 1], expected.imag, atol=1e-10)


def test_inverse_basis_returns_the_windowed_frame() -> None:
    signal = torch.randn(512, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    window = torch.hann_window(512, periodic=True, dtype=torch.float64)
    back = (stft_basis(512)[:, 0] @ signal) @ stft_basis(512, inverse=True)[:, 0]
    assert torch.allclose(back, signal * window**2, atol=1e-10)


def test_mel_basis_is_slaneys() -> None:
    expected = mel_filter_bank(257, 64, 0.0, 8000.0, 16000, norm="slaney", mel_scale="slaney").T
    basis = mel_basis(64, 512, 16000).numpy()
    assert basis == pytest.approx(expected, abs=1e-6)
    assert np.all(basis.max(axis=1) > 0)  # no filter falls between two bins
