"""Configurations of both vocoders, read from a diffusers checkpoint folder."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from conformance.errors import InputError, bad_field
from conformance.jsonio import read_json
from engine.configfile import parse

Activation = Literal["leaky_relu", "snake", "snakebeta"]
Final = Literal["tanh", "clamp", None]
Ints = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig:
    """One generator. Every upsampling halves ``hidden_channels`` and is followed by one residual block per kernel.

    output_sampling_rate: Hz. antialias: activations run at ``antialias_ratio`` times the rate, between two filters of
    ``antialias_kernel_size`` taps; just those that are not ``leaky_relu``. final_act_fn: what bounds the waveform.
    """

    in_channels: int
    hidden_channels: int
    out_channels: int
    upsample_kernel_sizes: Ints
    upsample_factors: Ints
    resnet_kernel_sizes: Ints
    resnet_dilations: tuple[Ints, ...]
    leaky_relu_negative_slope: float
    act_fn: Activation
    antialias: bool
    antialias_ratio: int
    antialias_kernel_size: int
    final_act_fn: Final
    final_bias: bool
    output_sampling_rate: int

    @property
    def factor(self) -> int:
        """Samples for one mel frame."""
        return math.prod(self.upsample_factors)

    def check(self, where: str, prefix: str = "") -> None:
        """InputError for the first field, named with ``prefix``, that does not fit the others."""
        kernels, factors = self.upsample_kernel_sizes, self.upsample_factors
        levels = len(factors)
        if len(kernels) != levels:
            raise bad_field(where, f"{prefix}upsample_kernel_sizes", kernels, f"{levels} values, one a factor")
        if any(kernel < factor or (kernel - factor) % 2 for kernel, factor in zip(kernels, factors, strict=True)):
            wanted = f"the factors {factors} plus 0 or an even number each"
            raise bad_field(where, f"{prefix}upsample_kernel_sizes", kernels, wanted)
        if len(self.resnet_dilations) != len(self.resnet_kernel_sizes):
            wanted = f"{len(self.resnet_kernel_sizes)} lists, one a kernel"
            raise bad_field(where, f"{prefix}resnet_dilations", self.resnet_dilations, wanted)
        if self.hidden_channels % 2**levels:
            raise bad_field(where, f"{prefix}hidden_channels", self.hidden_channels, f"a multiple of {2**levels}")
        if self.antialias == (self.act_fn == "leaky_relu"):
            wanted = f"{not self.antialias}, which is all that is implemented with {self.act_fn}"
            raise bad_field(where, f"{prefix}antialias", self.antialias, wanted)


@dataclass(frozen=True, kw_only=True)
class VocoderConfig(GeneratorConfig):
    """``vocoder/config.json`` of class LTX2Vocoder (LTX-2). Fields with a default are absent from older checkpoints."""

    act_fn: Activation = "leaky_relu"
    antialias: bool = False
    antialias_ratio: int = 2
    antialias_kernel_size: int = 12
    final_act_fn: Final = "tanh"
    final_bias: bool = True


@dataclass(frozen=True, kw_only=True)
class BandwidthVocoderConfig(GeneratorConfig):
    """``vocoder/config.json`` of class LTX2VocoderWithBWE (LTX-2.3): a generator, and a second one that extends it.

    input_sampling_rate: Hz, of the first generator's waveform. filter_length, window_length and hop_length: samples
    of the spectrogram of it that the second generator reads.
    """

    bwe_in_channels: int
    bwe_hidden_channels: int
    bwe_out_channels: int
    bwe_upsample_kernel_sizes: Ints
    bwe_upsample_factors: Ints
    bwe_resnet_kernel_sizes: Ints
    bwe_resnet_dilations: tuple[Ints, ...]
    bwe_leaky_relu_negative_slope: float
    bwe_act_fn: Activation
    bwe_antialias: bool
    bwe_antialias_ratio: int
    bwe_antialias_kernel_size: int
    bwe_final_act_fn: Final
    bwe_final_bias: bool
    filter_length: int
    hop_length: int
    window_length: int
    num_mel_channels: int
    input_sampling_rate: int

    @property
    def first(self) -> GeneratorConfig:
        """The first generator."""
        values = {name: getattr(self, name) for name in GeneratorConfig.__dataclass_fields__}
        return GeneratorConfig(**values | {"output_sampling_rate": self.input_sampling_rate})

    @property
    def extender(self) -> GeneratorConfig:
        """The second generator."""
        names = GeneratorConfig.__dataclass_fields__.keys() - {"output_sampling_rate"}
        values = {name: getattr(self, f"bwe_{name}") for name in names}
        return GeneratorConfig(output_sampling_rate=self.output_sampling_rate, **values)

    @property
    def ratio(self) -> int:
        """Output samples for one of the first generator."""
        return self.output_sampling_rate // self.input_sampling_rate

    def check(self, where: str, prefix: str = "") -> None:
        super().check(where, prefix)
        self.extender.check(where, f"{prefix}bwe_")
        if self.output_sampling_rate % self.input_sampling_rate:
            wanted = f"a multiple of input_sampling_rate {self.input_sampling_rate}"
            raise bad_field(where, "output_sampling_rate", self.output_sampling_rate, wanted)
        for name, expected in (
            ("window_length", self.filter_length),
            ("bwe_in_channels", self.out_channels * self.num_mel_channels),
            ("bwe_out_channels", self.out_channels),
        ):
            if getattr(self, name) != expected:
                raise bad_field(where, name, getattr(self, name), f"{expected}, as other fields imply")
        if self.extender.factor != self.hop_length * self.ratio:
            wanted = f"a product of {self.hop_length * self.ratio}, hop length times rate ratio"
            raise bad_field(where, "bwe_upsample_factors", self.bwe_upsample_factors, wanted)


_CLASSES: dict[str, type[VocoderConfig] | type[BandwidthVocoderConfig]] = {
    "LTX2Vocoder": VocoderConfig,
    "LTX2VocoderWithBWE": BandwidthVocoderConfig,
}


def load(folder: Path) -> VocoderConfig | BandwidthVocoderConfig:
    """Read and check ``folder/config.json``. InputError names the file, the key and what was expected."""
    path = folder / "config.json"
    data = read_json(path)
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected an object, got {type(data).__name__}")
    kind = data.get("_class_name")
    if not isinstance(kind, str) or kind not in _CLASSES:
        raise bad_field(str(path), "_class_name", kind, f"one of {tuple(_CLASSES)}")
    config = parse(_CLASSES[kind], path, fixed={})
    config.check(str(path))
    return config
