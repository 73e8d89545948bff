"""What the process server imports before it forks. Imports only: nothing here may compute or touch CUDA."""

import contextlib
import importlib
import threading

import tqdm

from conformance import guard

MODULES = (
    "torch",
    "skimage.metrics",
    "diffusers.pipelines.ltx2.pipeline_ltx2",
    "transformers.models.gemma3.modeling_gemma3",
    "conformance.gates",
    "engine.generator",
    "reference_impl.diffusers_ltx2",
)

guard.install()
tqdm.tqdm.set_lock(threading.RLock())  # its own is a semaphore of the system, which a killed child leaks
for _name in MODULES:
    with contextlib.suppress(Exception):  # it fails again, and is reported, in the case that needs it
        importlib.import_module(_name)
