"""The vocoders: mel frames at 100 Hz to 24 kHz (LTX-2), or to 16 kHz and by bandwidth extension to 48 kHz (LTX-2.3).

Upsampling factors, kernels and activations are the released ones; channels and residual blocks are fewer.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder, LTX2VocoderWithBWE

from reference_impl.tiny.fill import fill

_BLOCKS: dict[str, Any] = {"resnet_kernel_sizes": [3, 7], "resnet_dilations": [[1, 3], [1, 3]]}
_SNAKE: dict[str, Any] = {"act_fn": "snakebeta", "antialias": True, "final_act_fn": None, "final_bias": False}
CONFIG: dict[str, Any] = {
    **_BLOCKS,
    "in_channels": 128,
    "hidden_channels": 64,
    "out_channels": 2,
    "upsample_kernel_sizes": [16, 15, 8, 4, 4],
    "upsample_factors": [6, 5, 2, 2, 2],
    "act_fn": "leaky_relu",
    "leaky_relu_negative_slope": 0.1,
    "antialias": False,
    "final_act_fn": "tanh",
    "final_bias": True,
    "output_sampling_rate": 24000,
}
BWE_CONFIG: dict[str, Any] = {
    **_BLOCKS,
    **_SNAKE,
    **{f"bwe_{key}": value for key, value in (_BLOCKS | _SNAKE).items()},
    "in_channels": 128,
    "hidden_channels": 128,
    "out_channels": 2,
    "upsample_kernel_sizes": [11, 4, 4, 4, 4, 4],
    "upsample_factors": [5, 2, 2, 2, 2, 2],
    "bwe_in_channels": 128,
    "bwe_hidden_channels": 64,
    "bwe_out_channels": 2,
    "bwe_upsample_kernel_sizes": [12, 11, 4, 4, 4],
    "bwe_upsample_factors": [6, 5, 2, 2, 2],
    "filter_length": 512,
    "hop_length": 80,
    "window_length": 512,
    "num_mel_channels": 64,
    "input_sampling_rate": 16000,
    "output_sampling_rate": 48000,
}
# Snake activations grow the signal; these bring both stages back to a quarter of full scale at most.
GAINS = {"vocoder.conv_out": 0.025, "bwe_generator.conv_out": 0.008}
FILTERS = ("filter",)  # anti-aliasing kernels, constants of the architecture
BASES = ("forward_basis", "inverse_basis", "mel_basis")


def stft_basis(length: int, *, inverse: bool = False) -> torch.Tensor:
    """Real rows, then imaginary rows, of a DFT under a periodic Hann window: [2 * (length // 2 + 1), 1, length] fp64.

    inverse: rows that synthesise a frame from its half spectrum (every row but the first and last counts twice).
    """
    bins = length // 2 + 1
    time = torch.arange(length, dtype=torch.float64)
    angle = 2 * math.pi / length * torch.outer(torch.arange(bins, dtype=torch.float64), time)
    window = 0.5 - 0.5 * torch.cos(2 * math.pi / length * time)
    rows = torch.cat([angle.cos(), -angle.sin()]) * window
    if inverse:
        weight = torch.full((bins, 1), 2.0 / length, dtype=torch.float64)
        weight[0] = weight[-1] = 1.0 / length
        rows = rows * weight.repeat(2, 1)
    return rows[:, None]


def mel_basis(mels: int, length: int, rate: int) -> torch.Tensor:
    """Triangular filters of unit area on Slaney's mel scale (Auditory Toolbox, 1998): [mels, length // 2 + 1] fp64."""
    log_step, corner = math.log(6.4) / 27, 1000.0
    top = 15 + math.log(rate / 2 / corner) / log_step
    mel = torch.linspace(0.0, top, mels + 2, dtype=torch.float64)
    edges = torch.where(mel < 15, mel * 200 / 3, corner * torch.exp(log_step * (mel - 15)))
    frequency = torch.linspace(0.0, rate / 2, length // 2 + 1, dtype=torch.float64)
    rising = (frequency - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - frequency) / (edges[2:] - edges[1:-1])[:, None]
    return torch.minimum(rising, falling).clamp(min=0) * (2 / (edges[2:] - edges[:-2]))[:, None]


def build(model: str) -> LTX2Vocoder | LTX2VocoderWithBWE:
    """The filled vocoder of ``ltx-2`` or ``ltx-2.3``, bfloat16."""
    if model == "ltx-2":
        vocoder = LTX2Vocoder(**CONFIG)
        fill(vocoder, f"{model}/vocoder")
        return vocoder
    extended = LTX2VocoderWithBWE(**BWE_CONFIG)
    length = BWE_CONFIG["filter_length"]
    stft = extended.mel_stft.stft_fn
    stft.forward_basis = stft_basis(length)
    stft.inverse_basis = stft_basis(length, inverse=True)
    rate = BWE_CONFIG["input_sampling_rate"]
    extended.mel_stft.mel_basis = mel_basis(BWE_CONFIG["num_mel_channels"], length, rate)
    fill(extended, f"{model}/vocoder", gains=GAINS, keep=(*FILTERS, *BASES))
    return extended
