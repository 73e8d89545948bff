"""Configurations as official single files record them: LTX-2 with every key left out that has a default, LTX-2.3 whole.

Written by hand from the released models' sizes (diffusers' conversion script) and the keys ltx-core 1.0.0 reads, with
some that it does not.
"""

from __future__ import annotations

from typing import Any

_CHECKED: dict[str, Any] = {
    "dropout": 0.0,
    "attention_bias": True,
    "num_vector_embeds": None,
    "activation_fn": "gelu-approximate",
    "num_embeds_ada_norm": 1000,
    "use_linear_projection": False,
    "only_cross_attention": False,
    "cross_attention_norm": True,
    "double_self_attention": False,
    "upcast_attention": False,
    "standardization_norm": "rms_norm",
    "norm_elementwise_affine": False,
    "qk_norm": "rms_norm",
    "positional_embedding_type": "rope",
    "use_audio_video_cross_attention": True,
    "share_ff": False,
    "av_cross_ada_norm": True,
    "use_middle_indices_grid": True,
}
LTX2: dict[str, Any] = {
    "transformer": _CHECKED
    | {
        "_class_name": "AVTransformer3DModel",
        "norm_num_groups": 32,
        "rope_type": "split",
        "frequencies_precision": "float64",
        "av_ca_timestep_scale_multiplier": 1000.0,
        "caption_channels": 3840,
        "num_attention_heads": 32,
        "attention_head_dim": 128,
        "audio_num_attention_heads": 32,
        "audio_attention_head_dim": 64,
        "connector_positional_embedding_max_pos": [4096],
    },
    "vae": {
        "_class_name": "CausalVideoAutoencoder",
        "encoder_blocks": [
            ["res_x", {"num_layers": 4}],
            ["compress_space_res", {"multiplier": 2}],
            ["res_x", 6],
            ["compress_time_res", {"multiplier": 2}],
            ["res_x", {"num_layers": 6}],
            ["compress_all_res", {}],
            ["res_x", {"num_layers": 2}],
            ["compress_all_res", {"multiplier": 2}],
            ["res_x", {"num_layers": 2}],
        ],
        "decoder_blocks": [
            ["res_x", {"num_layers": 5, "inject_noise": False}],
            ["compress_all", {"residual": True, "multiplier": 2}],
            ["res_x", {"num_layers": 5}],
            ["compress_all", {"residual": True, "multiplier": 2}],
            ["res_x", {"num_layers": 5}],
            ["compress_all", {"residual": True, "multiplier": 2}],
            ["res_x", {"num_layers": 5}],
        ],
        "timestep_conditioning": False,
    },
    "audio_vae": {
        "model": {"params": {"ddconfig": {"mid_block_add_attention": False}}},
        "preprocessing": {"mel": {"n_mel_channels": 64}},
    },
    "vocoder": {"resblock": "1", "stereo": True},
    "scheduler": {"_class_name": "RectifiedFlowScheduler"},
}
_STAGE: dict[str, Any] = {
    "resblock": "AMP1",
    "activation": "snakebeta",
    "stereo": True,
    "use_tanh_at_final": False,
    "use_bias_at_final": False,
    "resblock_kernel_sizes": [3, 7, 11],
    "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5], [1, 3, 5]],
}
LTX23: dict[str, Any] = {
    "transformer": LTX2["transformer"]
    | {
        "in_channels": 128,
        "out_channels": 128,
        "num_layers": 48,
        "cross_attention_dim": 4096,
        "norm_eps": 1e-6,
        "timestep_scale_multiplier": 1000,
        "audio_in_channels": 128,
        "audio_out_channels": 128,
        "audio_cross_attention_dim": 2048,
        "positional_embedding_theta": 10000.0,
        "positional_embedding_max_pos": [20, 2048, 2048],
        "audio_positional_embedding_max_pos": [20],
        "apply_gated_attention": True,
        "cross_attention_adaln": True,
        "connector_apply_gated_attention": True,
        "connector_num_attention_heads": 32,
        "connector_num_layers": 8,
        "audio_connector_attention_head_dim": 64,
        "caption_proj_before_connector": True,
        "caption_projection_first_linear": False,
        "caption_proj_input_norm": False,
        "caption_projection_second_linear": False,
    },
    "vae": {
        "encoder_blocks": [
            ["res_x", {"num_layers": 4}],
            ["compress_space_res", {"multiplier": 2}],
            ["res_x", {"num_layers": 6}],
            ["compress_time_res", {"multiplier": 2}],
            ["res_x", {"num_layers": 4}],
            ["compress_all_res", {"multiplier": 2}],
            ["res_x", {"num_layers": 2}],
            ["compress_all_res", {"multiplier": 1}],
            ["res_x", {"num_layers": 2}],
        ],
        "decoder_blocks": [
            ["res_x", {"num_layers": 4}],
            ["compress_space", {"multiplier": 2}],
            ["res_x", {"num_layers": 6}],
            ["compress_time", {"multiplier": 2, "residual": True}],
            ["res_x", {"num_layers": 4}],
            ["compress_all", {}],
            ["res_x", {"num_layers": 2}],
            ["compress_all", {"multiplier": 2}],
            ["res_x", {"num_layers": 2}],
        ],
        "spatial_padding_mode": "zeros",
        "causal_decoder": False,
        "timestep_conditioning": False,
    },
    "audio_vae": {
        "model": {
            "params": {
                "sampling_rate": 16000,
                "ddconfig": {
                    "mid_block_add_attention": False,
                    "mel_bins": 64,
                    "attn_resolutions": [],
                    "double_z": True,
                },
            }
        },
        "preprocessing": {"stft": {"hop_length": 160, "causal": True, "filter_length": 1024}},
    },
    "vocoder": {
        "vocoder": _STAGE
        | {
            "upsample_initial_channel": 1536,
            "upsample_rates": [5, 2, 2, 2, 2, 2],
            "upsample_kernel_sizes": [11, 4, 4, 4, 4, 4],
        },
        "bwe": _STAGE
        | {
            "upsample_initial_channel": 512,
            "upsample_rates": [6, 5, 2, 2, 2],
            "upsample_kernel_sizes": [12, 11, 4, 4, 4],
            "n_fft": 512,
            "hop_length": 80,
            "num_mels": 64,
            "input_sampling_rate": 16000,
            "output_sampling_rate": 48000,
        },
    },
}
_REGISTERS = {
    f"model.diffusion_model.{stream}_embeddings_connector.learnable_registers": (128, 3840)
    for stream in ("video", "audio")
}
_FEATURES = 3840 * 49
SHAPES2 = _REGISTERS | {"text_embedding_projection.aggregate_embed.weight": (3840, _FEATURES)}
SHAPES23 = _REGISTERS | {"text_embedding_projection.video_aggregate_embed.weight": (4096, _FEATURES)}
RELEASED = {"LTX-2": (LTX2, SHAPES2), "LTX-2.3": (LTX23, SHAPES23)}
