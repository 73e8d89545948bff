"""What every field of ``Numerics`` can change, measured: in its operation, in a component, in a short run.

``python -m conformance.defects.fields --out docs/fields.md`` measures and writes the table. A field without an entry in
``FIELDS`` fails the tests, and so does one whose operation does not show it in exactly the dtypes it names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from conformance.defects.fields import model_operations as model
from conformance.defects.fields import sampling_operations as sampling

BOTH, BF16, FP32, NEITHER = ("fp32", "bf16"), ("bf16",), ("fp32",), ()


@dataclass(frozen=True)
class Field:
    """Where a field shows.

    operation: what reads it, alone; None where the pipeline itself does, whose taps then stand for it. seen: dtypes in
    which a flip changes its bits on a CPU. taps: patterns of the taps that the first component to read it leaves
    behind. case: what kind of run exercises it (``measure.CASES``).
    except_: the same as ``seen`` for values that differ from the rest.
    """

    operation: model.Operation | None
    seen: tuple[str, ...]
    taps: tuple[str, ...]
    case: str = "text"
    except_: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def shows(self, value: str) -> tuple[str, ...]:
        """Dtypes in which a flip to ``value`` changes the operation's bits on a CPU."""
        return self.except_.get(value, self.seen)


_DIT, _CONNECTORS = ("step.000/*/velocity/*",), ("connector/*",)
_SECOND, _RES2S = ("stage.2/step.000/latents/*",), ("stage.1/step.001/latents/*",)
_X0, _SIGMAS, _SOUND = ("step.000/guided_x0/*",), ("sigmas",), ("audio/waveform",)

FIELDS: dict[str, Field] = {
    "rope_grid_dtype": Field(model.grid, BOTH, _CONNECTORS),
    "rope_rounding": Field(model.rotation, BF16, _CONNECTORS),
    "positions_dtype": Field(model.middles, BF16, _DIT),
    "timestep_shape": Field(model.timestep_head, FP32, _DIT),
    "text_mask": Field(model.text_attention, NEITHER, _DIT),
    "connector_mask": Field(model.connector_attention, NEITHER, _CONNECTORS),
    "connector_batch": Field(model.connectors, NEITHER, _CONNECTORS),
    "feature_rms_dtype": Field(model.text_norm, BF16, _CONNECTORS),
    "qk_norm": Field(model.query_norm, BF16, _CONNECTORS),
    "block_norm": Field(model.state_norm, NEITHER, _DIT),
    "stg": Field(model.perturbed_attention, BOTH, _DIT),
    "autocast": Field(model.norms_under_autocast, NEITHER, _DIT),
    "attention": Field(model.attention, BOTH, _CONNECTORS, except_={"flash": NEITHER}),
    "row_reduce_dtype": Field(model.row_products, BF16, _DIT),
    "cfg_batch": Field(sampling.guided_batch, BOTH, _DIT),
    "token_memory": Field(model.patchified, BF16, _DIT),
    "latent_dtype": Field(sampling.first_state, BF16, ("step.000/latents/*",)),
    "x0_dtype": Field(sampling.first_x0, BF16, _X0),
    "velocity_dtype": Field(sampling.last_state, BF16, ("step.001/latents/*",)),
    "velocity_divisor": Field(sampling.last_state, NEITHER, ("step.001/latents/*",)),
    "guider_dtype": Field(sampling.guided, BF16, _X0),
    "rescale": Field(sampling.guided, BOTH, _X0),
    "av_timestep": Field(sampling.held_frame_velocity, BOTH, _DIT, case="image"),
    "given_tokens": Field(sampling.held_frame_x0, BOTH, _X0, case="image"),
    "image_fit": Field(model.fitted_picture, BOTH, ("image/pixels",), case="fitted"),
    "image_normal_dtype": Field(model.picture_latents, BF16, ("image/latents",), case="image"),
    "noiser": Field(sampling.noised, BOTH, _SECOND, case="two-stage", except_={"masked": BF16}),
    "lora_delta_dtype": Field(sampling.merged_weight, BOTH, ("stage.1/step.000/*/velocity/*",), case="two-stage"),
    "upsample_dtype": Field(sampling.upsampler_input, BF16, ("upsample/input",), case="two-stage"),
    "second_given_frame": Field(None, BOTH, ("stage.2/start/video",), case="two-stage-image"),
    "audio_handoff": Field(sampling.handed_over, BOTH, ("stage.2/start/audio",), case="two-stage"),
    "audio_stage": Field(None, BOTH, ("latents/decode/audio",), case="two-stage"),
    "audio_denormal_dtype": Field(model.audio_statistics, BF16, ("latents/decode/audio",)),
    "frame_bytes": Field(model.frame_bytes, BOTH, ("frames",)),
    "schedule_tokens": Field(sampling.levels, BOTH, _SIGMAS, case="schedule"),
    "schedule_grid": Field(sampling.levels, BOTH, _SIGMAS, case="schedule"),
    "schedule_shift": Field(sampling.long_levels, BOTH, _SIGMAS, case="schedule"),
    "vocoder_dtype": Field(model.waveform, BF16, _SOUND),
    "vocoder_clamp": Field(model.loud_waveform, BOTH, _SOUND),
    "resampler_dtype": Field(model.resampled, BF16, _SOUND),
    "sde_noise_dtype": Field(sampling.injected, BOTH, _RES2S, case="res2s"),
    "sde_levels_dtype": Field(sampling.res2s_states, FP32, _RES2S, case="res2s"),
    "res2s_coefficients": Field(sampling.second_order_weights, BOTH, _RES2S, case="res2s"),
    "midpoint_dtype": Field(sampling.res2s_states, BOTH, _RES2S, case="res2s"),
    "midpoint_level": Field(sampling.half_step_timesteps, BOTH, _RES2S, case="res2s"),
    "second_memory": Field(sampling.second_start, BF16, ("stage.2/step.000/*/velocity/*",), case="two-stage"),
}
