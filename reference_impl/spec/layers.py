"""Operations of a transformer layer. Legend: B batch, T tokens, D width, H heads, d head dim."""

from __future__ import annotations

import math

import torch

from reference_impl.spec.rounding import exact, f32, round_to


def inverse_rms(x: torch.Tensor, eps: float) -> torch.Tensor:
    """1/sqrt(mean(x^2) + eps) over the last axis: float32 after every operation, the sum being exact here."""
    x = exact(x)
    squares = f32(x * x)
    mean = f32(squares.sum(-1, keepdim=True) / x.shape[-1])
    return f32(1.0 / f32(torch.sqrt(f32(mean + f32(exact(eps))))))


def rms_norm(x: torch.Tensor, eps: float, dtype: torch.dtype) -> torch.Tensor:
    """Zhang and Sennrich 2019, arXiv:1910.07467, without a weight: one rounding to ``dtype``."""
    return round_to(f32(exact(x) * inverse_rms(x, eps)), dtype)


def weighted_rms_norm(
    x: torch.Tensor, weight_D: torch.Tensor, eps: float, dtype: torch.dtype, *, twice: bool
) -> torch.Tensor:
    """With a weight. Rounded to ``dtype`` once, after the weight; or before it and after it (``twice``)."""
    normed = f32(exact(x) * inverse_rms(x, eps))
    if twice:
        normed = round_to(normed, dtype)
    return round_to(f32(normed * exact(weight_D)), dtype)


def gate(logits: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """2*sigmoid, the sigmoid rounded to ``dtype``; doubling is exact."""
    return 2.0 * round_to(1.0 / (1.0 + torch.exp(-exact(logits))), dtype)


def gated(x_BTHd: torch.Tensor, logits_BTH: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Every head times its gate."""
    return round_to(exact(x_BTHd) * gate(logits_BTH, dtype).unsqueeze(-1), dtype)


def gelu_tanh(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """x/2 * (1 + tanh(sqrt(2/pi)*(x + 0.044715 x^3))), Hendrycks and Gimpel 2016, arXiv:1606.08415; one rounding."""
    x = exact(x)
    return round_to(0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3))), dtype)


def modulate(x: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """x*(1 + scale) + shift, three operations rounded each."""
    factor = round_to(1.0 + exact(scale), dtype)
    return round_to(round_to(exact(x) * factor, dtype) + exact(shift), dtype)


def modulation_rows(table_kD: torch.Tensor, ada_BTM: torch.Tensor, dtype: torch.dtype) -> list[torch.Tensor]:
    """Row j of a block's table plus columns j*D..(j+1)*D of the shared head: k tensors [B,T,D]."""
    rows, width = table_kD.shape
    return [round_to(exact(table_kD[j]) + exact(ada_BTM[..., j * width : (j + 1) * width]), dtype) for j in range(rows)]


def residual(x: torch.Tensor, out: torch.Tensor, gate_row: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """x + out*gate, two operations rounded each."""
    return round_to(exact(x) + round_to(exact(out) * exact(gate_row), dtype), dtype)


def sinusoid(t_N: torch.Tensor) -> torch.Tensor:
    """[cos(t*w), sin(t*w)], w_i = e^(-ln(10000)*i/128): [N] -> [N,256], cosine and sine not rounded.

    The angle is float32 after every operation, and reaches 1000: roundings of 2^-15 there are part of the definition.
    So is torch's float32 exponential, an ulp off the nearest number for 2 of the 128 frequencies: 2e-6 of what the tiny
    DiT puts out.
    """
    angles = torch.empty(t_N.numel(), 128, dtype=torch.float64)
    for index in range(128):
        exponent = f32(f32(exact(-math.log(10000.0))) * index) / 128.0
        frequency = exact(torch.exp(exponent.float()))
        angles[:, index] = f32(exact(t_N) * frequency)
    return torch.cat((torch.cos(angles), torch.sin(angles)), dim=-1)
