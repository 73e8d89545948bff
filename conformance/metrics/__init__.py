"""Metrics by name: one a file, each registered under the name it has in results and thresholds.

Importing this package loads numpy only; scikit-image, torch and open_clip come with the first use.
"""

from __future__ import annotations

# Each import registers a metric; their order is that of reports.
# isort: off
from conformance.metrics import (  # noqa: F401
    clip,
    ssim,
    psnr,
    mean_abs_diff,
    tile_ssim,
    tile_mean_abs_diff,
    p999_abs_diff,
    max_abs_diff,
    latents_rel_l2,
    latents_max_abs,
    latents_norm_error,
    latents_cosine,
    audio_log_spectral_distance,
    audio_correlation,
    audio_rms_db,
    audio_duration,
)

# isort: on
from conformance.metrics.pairs import AudioPair, FramePair
from conformance.metrics.registry import REGISTRY, Metric, register

__all__ = ["REGISTRY", "AudioPair", "FramePair", "Metric", "register"]
