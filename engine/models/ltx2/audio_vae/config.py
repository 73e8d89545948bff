"""Configuration of the audio VAE, read from a diffusers checkpoint folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from conformance.errors import bad_field
from engine.configfile import parse

RATIO = 4  # mel frames a latent frame, and mel bins a latent bin: two halvings by three levels

# key -> (implemented value, value of an absent key), the latter being diffusers 0.42's default
_FIXED = {
    "attn_resolutions": (None, None),
    "norm_type": ("pixel", "pixel"),
    "causality_axis": ("height", "height"),
    "dropout": (0.0, 0.0),
    "mid_block_add_attention": (False, False),
    "is_causal": (True, True),
    "double_z": (True, True),
}
# only bookkeeping of attention layers, which no released checkpoint has
_UNUSED = frozenset({"resolution"})


@dataclass(frozen=True, kw_only=True)
class AudioVAEConfig:
    """``audio_vae/config.json``. sample_rate: Hz; mel_hop_length: samples a mel frame; ch_mult: widths, finest first.

    The latents' statistics are per feature of a packed token, latent channel times latent bin, and the file layout
    makes ``base_channels`` their number.
    """

    base_channels: int
    in_channels: int
    output_channels: int
    ch_mult: tuple[int, int, int]
    num_res_blocks: int
    latent_channels: int
    mel_bins: int
    sample_rate: int
    mel_hop_length: int

    @classmethod
    def load(cls, folder: Path) -> AudioVAEConfig:
        """Read and check ``folder/config.json``. InputError names the file, the key and what was expected."""
        path = folder / "config.json"
        config = parse(cls, path, fixed=_FIXED, unused=_UNUSED)
        if config.mel_bins % RATIO:
            raise bad_field(str(path), "mel_bins", config.mel_bins, f"a multiple of {RATIO}")
        features = config.latent_channels * config.latent_bins
        if config.base_channels != features:
            raise bad_field(str(path), "base_channels", config.base_channels, f"{features}, as other fields imply")
        return config

    @property
    def latent_bins(self) -> int:
        return self.mel_bins // RATIO

    @property
    def latents_per_second(self) -> float:
        return self.sample_rate / self.mel_hop_length / float(RATIO)
