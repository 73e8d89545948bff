from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys

import pytest
import torch

from conformance import environment


def test_versions_are_texts_and_say_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "PACKAGES", ("numpy", "no-such-distribution"))
    versions = environment.versions()
    assert versions["numpy"] == importlib.metadata.version("numpy")
    assert versions["no-such-distribution"] == "absent"
    assert versions["python"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}.")


def test_versions_import_no_package() -> None:
    code = "import sys; from conformance.environment import versions; versions(); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_ledger_is_json_and_repeatable() -> None:
    ledger = environment.ledger("cpu")
    assert json.loads(json.dumps(ledger, allow_nan=False)) == ledger == environment.ledger("cpu")
    assert ledger["device"] == {"kind": "cpu", "name": "cpu"}
    assert ledger["versions"] == environment.versions()
    assert ledger["cpu"]["model"]


def test_ledger_follows_flags_threads_and_both_precision_settings() -> None:
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    precision = torch.backends.cuda.matmul.fp32_precision
    try:
        torch.set_num_threads(threads + 1)
        torch.use_deterministic_algorithms(not deterministic)
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        torch.backends.cuda.enable_flash_sdp(False)
        ledger = environment.ledger("cpu")
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
        torch.backends.cuda.matmul.fp32_precision = precision
        torch.backends.cuda.enable_flash_sdp(True)
    assert ledger["threads"]["intra"] == threads + 1
    assert ledger["flags"]["deterministic_algorithms"] is not deterministic
    assert ledger["flags"]["cuda.matmul.fp32_precision"] == "tf32"
    assert ledger["flags"]["sdpa_flash"] is False


def test_variables_are_an_allow_list(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", "CUBLAS_WORKSPACE_CONFIG", "NCCL_ALGO", "TRITON_INTERPRET"):
        monkeypatch.setenv(name, "1")
    for name in ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "MY_OMP_SECRET"):
        monkeypatch.setenv(name, "secret")
    found = environment.variables()
    assert {"OMP_NUM_THREADS", "CUBLAS_WORKSPACE_CONFIG", "NCCL_ALGO", "TRITON_INTERPRET"} <= found.keys()
    assert "secret" not in json.dumps(environment.ledger("cpu"))


@pytest.mark.gpu
def test_ledger_names_the_gpu() -> None:
    device = environment.ledger("cuda")["device"]
    assert device["name"] == environment.cohort_device("cuda") == torch.cuda.get_device_name(0)
    assert device["cuda"] == torch.version.cuda
