"""The engine as a Generator of the conformance harness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from conformance.case import Case, Request
from conformance.errors import InputError, UnsupportedCase, bad_field
from conformance.generator import Probe, Sample, position_digests, tensor_digest
from engine import components, numerics, picks, quantization
from engine.frames import to_bytes
from engine.loading import Loader
from engine.models.ltx2.video_vae.tiling import Spread, one_by_one
from engine.parallel import mesh, vae
from engine.parallel.models import on_ranks
from engine.pipelines import ltx2
from engine.pipelines.ltx2_inputs import Latents, TextStates
from engine.sampling.branches import run_all

MODELS = ("ltx-2", "ltx-2.3")


class Engine:
    """Generates LTX-2 and LTX-2.3 cases from a checkpoint folder in the diffusers layout.

    On one device, or on as many ranks as the case's layout says: each has an engine, is in the initialised default
    process group, generates the same case, and returns all of the sample but the taps of branches it did not run.
    """

    name = "engine"

    def __init__(self, checkpoint: Path, device: str) -> None:
        self._device = torch.device(device)
        self._loader = Loader(checkpoint, self._device)

    @torch.inference_mode()
    def generate(self, case: Case, probe: Probe) -> Sample:
        """Produce the case.

        UnsupportedCase for a model or pipeline the engine does not have and a layout without its ranks; InputError for
        a checkpoint or request that cannot be used, and a layout that does not divide the models.
        """
        _check_supported(case)
        with picks.scope(kernels=case.kernels == "on") as picked:
            sample = self._generate(case, probe)
        sample.ledger["kernel"] = picked.ledger()
        return sample

    def _generate(self, case: Case, probe: Probe) -> Sample:
        request, rounding = case.request, numerics.resolve(case)
        models, spread = self._loader.models(case, rounding), run_all
        tiles: Spread = one_by_one
        if case.layout.world > 1:
            places = mesh.make(case.layout, self._device)
            models, spread = on_ranks(models, places, rounding)
            tiles = vae.spread_over(places.world)
        run = ltx2.Run(
            models=models,
            request=request,
            sampler=ltx2.PIPELINES[case.pipeline],
            numerics=rounding,
            probe=probe,
            spread=spread,
        )
        states, text = run.text()
        stages = run.stages(states, text)
        last, heard = stages[-1], stages[0 if rounding.audio_stage == "first" else -1]
        final = {"video": last.final["video"].float(), "audio": heard.final["audio"].float()}
        frames, waveform = self._decode(models.parts, request, tiles, final, last.sizes, rounding, probe)
        return Sample(
            frames=to_bytes(frames, rounding),
            frames_float=frames,
            audio=waveform,
            audio_rate=models.parts.audio_rate,
            latents={stream: state.cpu() for stream, state in final.items()},
            trace=probe.trace,
            tensors=probe.tensors,
            resolved=self._resolved(case, stages, states, probe) | {"quantization": quantization.used(models.first)},
            ledger={"numerics": asdict(rounding)},
        )

    def _decode(
        self,
        parts: components.Components,
        request: Request,
        tiles: Spread,
        final: Mapping[str, torch.Tensor],
        sizes: Latents,
        rounding: numerics.Numerics,
        probe: Probe,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Frames in [0,1] as float32 [B,F,H,W,3] and waveform as float32 [B,C,N]."""
        video, audio = components.decoder_inputs(parts, final["video"], final["audio"], sizes, rounding)
        probe.tap("latents/decode/video", video)
        probe.tap("latents/decode/audio", audio)
        frames_BCFHW, waveform = components.decode(parts, video, audio, rounding, request.vae_tiling, tiles)
        probe.tap("vae/frames", frames_BCFHW)
        probe.tap("audio/waveform", waveform)
        shown = (frames_BCFHW * 0.5 + 0.5).clamp(0, 1).permute(0, 2, 3, 4, 1)
        return shown.float().cpu().numpy(), waveform.float().cpu().numpy()

    def _resolved(
        self, case: Case, stages: Sequence[ltx2.Stage], states: Mapping[str, TextStates], probe: Probe
    ) -> dict[str, Any]:
        request = case.request
        return {
            "height": request.height,
            "width": request.width,
            "num_frames": request.num_frames,
            "frame_rate": request.frame_rate,
            "steps": request.steps,
            "guidance": {"video": asdict(request.video_guidance), "audio": asdict(request.audio_guidance)},
            "stg_blocks": list(request.stg_blocks),
            "skip_v2a": request.skip_v2a,
            "dtype": case.dtype,
            **stages[0].echo(),
            "positions": position_digests(probe.trace, "stage.1" if len(stages) > 1 else ""),
            "second_stage": self._second_stage(case, stages, probe),
            "vae_tiling": None if request.vae_tiling is None else request.vae_tiling.as_dict(),
            "embeds": {name: tensor_digest(text.embeds) for name, text in states.items() if text.embeds is not None},
            "weights": self._loader.digests(case),
            "batch": len(request.prompts),
            "text_tokens": request.text_tokens,
            "prompt_tokens": {
                name: text.mask.sum(-1).tolist() for name, text in states.items() if text.mask is not None
            },
        }

    def _second_stage(self, case: Case, stages: Sequence[ltx2.Stage], probe: Probe) -> dict[str, Any] | None:
        request = case.request
        if request.second is None:
            return None
        adapter = {
            "first": request.second.lora_first,
            "second": request.second.lora_second,
            "digest": self._loader.lora_digest(request.second),
        }
        echo = stages[1].echo() | {"positions": position_digests(probe.trace, "stage.2")}
        return {"height": request.height, "width": request.width, **echo, "lora": adapter}


def _check_supported(case: Case) -> None:
    if case.layout.world > 1 and not (dist.is_available() and dist.is_initialized()):
        raise UnsupportedCase(f"engine: 'layout' is {case.layout.name!r}; its ranks are in no process group")
    for name, value, known in (
        ("pipeline", case.pipeline, tuple(ltx2.PIPELINES)),
        ("model", case.model, MODELS),
    ):
        if value not in known:
            raise UnsupportedCase(f"engine: {name!r} is {value!r}; the engine has {known}")


def build(checkpoint: Path, device: str) -> Engine:
    """The engine on ``device`` ("cpu", "cuda", "cuda:1"); models are loaded by the first case.

    InputError when the folder does not exist or the device cannot be used.
    """
    if not checkpoint.is_dir():
        raise InputError(f"{checkpoint}: no such folder; expected a checkpoint in the diffusers layout")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise bad_field("engine", "device", device, f"a usable device ({str(error).splitlines()[0]})") from None
    return Engine(checkpoint, device)
