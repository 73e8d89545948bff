"""Asking the oracle about a case of a run: the truth from its taps, then who is closer to it.

The truth is the denoising loop in float64 (``reference_impl.spec.trajectory``) over what both sides gave the DiT:
start, text contexts, positions, noise levels, and the weights as rounded to the case's dtype. It belongs to neither
side. Where text contexts differ already, each side is measured from its own: a loop that is worse is found, one that is
no worse proves nothing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from conformance.case import Case
from conformance.generator import Sample
from conformance.oracle import judge_all
from reference_impl.spec.trajectory import STREAMS, Loop, run

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def ask(case: Case, folder: Path, candidate: Sample, reference: Sample) -> dict[str, Any]:
    """``Finding.as_dict()``; with ``sentence`` alone, why there is none. folder: the checkpoint, diffusers layout."""
    if why := _unknown(case):
        return {"sentence": f"no truth: {why}"}
    early = _unlike(candidate, reference)
    if early and "positions/video" not in reference.tensors:
        return {
            "sentence": f"no truth: {early} differs already, before the loop, and a stored reference kept no inputs"
        }
    weights, config = _weights(folder, case.dtype), _config(folder)
    with torch.inference_mode():
        truth = run(weights, config, _loop(case, candidate))
        theirs = run(weights, config, _loop(case, reference)) if early else truth
    found = judge_all(_outputs(candidate), _outputs(reference), truth, theirs)
    if found is None:
        return {"sentence": "latents and first velocities are equal: the decoders differ"}
    if early and found.finding in ("BENIGN_REROUND", "NOISE"):
        return {"sentence": f"no finding: {early} differs already, and from there both are equally far from the truth"}
    return found.as_dict()


def _unknown(case: Case) -> str:
    """What of a case the float64 loop does not know."""
    request = case.request
    for name, there in (
        ("a given frame", request.image is not None),
        ("two stages", request.second is not None),
        ("no video-to-audio attention", request.skip_v2a),
        (f"quantization {case.quantization!r}", case.quantization == "fp8-cast"),
    ):
        if there:
            return f"the float64 loop knows nothing of {name}"
    return ""


def _unlike(candidate: Sample, reference: Sample) -> str:
    """The first tap that goes into the loop and is not the same on both sides."""
    for name, tap in candidate.trace.items():
        inputs = name.startswith("connector/") or name.startswith("step.000/latents/") or name == "sigmas"
        if inputs and name in reference.trace and tap.sha256 != reference.trace[name].sha256:
            return name
    return ""


def _loop(case: Case, sample: Sample) -> Loop:
    taps, request = sample.tensors, case.request
    prompts = [prompt for prompt in ("pos", "neg") if f"connector/{prompt}/video" in taps]
    return Loop(
        state={stream: taps[f"step.000/latents/{stream}"] for stream in STREAMS},
        contexts={prompt: {stream: taps[f"connector/{prompt}/{stream}"] for stream in STREAMS} for prompt in prompts},
        sigmas=taps["sigmas"],
        bounds={stream: taps[f"positions/{stream}"] for stream in STREAMS},
        guidance={"video": request.video_guidance, "audio": request.audio_guidance},
        stg_blocks=request.stg_blocks,
    )


def _outputs(sample: Sample) -> dict[str, torch.Tensor]:
    """What is compared with the truth: the first forward shows operators, the final latents the whole loop."""
    found = {f"final/{stream}": sample.latents[stream] for stream in STREAMS if stream in sample.latents}
    for stream in STREAMS:
        if (velocity := sample.tensors.get(f"step.000/cond/velocity/{stream}")) is not None:
            found[f"first/{stream}"] = velocity
    return found


def _weights(folder: Path, dtype: str) -> dict[str, torch.Tensor]:
    files = sorted((folder / "transformer").glob("*.safetensors"))
    return {name: value.to(_DTYPES[dtype]) for file in files for name, value in load_file(file).items()}


def _config(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "transformer" / "config.json").read_text()))
