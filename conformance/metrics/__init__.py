"""Metrics by name: one a file (the periods of a grid in one), each registered under its name in results and limits.

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
    grid,
    seam_step,
    blockiness,
    edge_energy_db,
    quiet_noise_db,
    shift_px,
    colour_mean,
    colour_spread,
    temporal_diff,
    motion_diff,
    latents_rel_l2,
    latents_max_abs,
    latents_norm_error,
    latents_cosine,
    latents_worst_channel,
    latents_worst_token,
    latents_coarse_share,
    audio_log_spectral_distance,
    audio_correlation,
    audio_rms_db,
    audio_window_error,
    audio_window_level_db,
    audio_peak_db,
    audio_clipped_share,
    audio_side_correlation,
    audio_duration,
)

# isort: on
from conformance.metrics.pairs import AudioPair, FramePair, MotionPair, StereoPair
from conformance.metrics.registry import REGISTRY, Metric, register

__all__ = ["REGISTRY", "AudioPair", "FramePair", "Metric", "MotionPair", "StereoPair", "register"]
