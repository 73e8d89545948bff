from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# With what needs torchvision: the __init__ files of the first two load it lazily.
IMPORTS = (
    "import diffusers\nfrom diffusers import LTX2Pipeline",
    "import transformers\nfrom transformers import Gemma3Processor",
    "import open_clip",
)
# What PyPI's torchvision does beside a CPU build of torch, reduced to its two steps.
BROKEN = """
import torch
@torch.library.register_fake("torchvision::nms")
def _(dets, scores, iou_threshold): ...
from torchvision.half import LOADED
"""


def python(code: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    search = os.pathsep.join(str(item) for item in (path, ROOT, os.environ.get("PYTHONPATH")) if item)
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": search},
        capture_output=True,
        text=True,
        timeout=100,
    )


def package(root: Path, name: str, **files: str) -> Path:
    (root / name).mkdir(parents=True)
    for stem, text in files.items():
        (root / name / f"{stem}.py").write_text(text)
    return root


@pytest.mark.parametrize(
    "order",
    [pytest.param(IMPORTS, id="forwards"), pytest.param(IMPORTS[::-1], id="backwards", marks=pytest.mark.slow)],
)  # every pair both ways
def test_all_import_in_one_process(order: tuple[str, ...]) -> None:
    done = python("\n".join(("from conformance import guard", "guard.install()", "guard.install()", *order)))
    assert done.returncode == 0, done.stderr


def test_missing_operators_are_repaired(tmp_path: Path) -> None:
    path = package(tmp_path, "torchvision", __init__=BROKEN, half="LOADED = True")
    assert "torchvision::nms does not exist" in python("import torchvision", path).stderr
    done = python(
        "from conformance import guard\nguard.install(); guard.install()\n"
        "import torchvision; assert torchvision.LOADED; print(guard.torchvision())",
        path,
    )
    assert (done.stdout, done.returncode) == ("repaired\n", 0), done.stderr


def test_a_torchvision_that_loads_is_left_alone(tmp_path: Path) -> None:
    path = package(tmp_path, "torchvision", __init__="import half_imported", half="")
    (tmp_path / "half_imported.py").write_text("count = 0")
    done = python(
        "import torchvision; before = torchvision\nfrom conformance import guard\nguard.install()\n"
        "import sys; assert sys.modules['torchvision'] is before and 'torch' not in sys.modules\n"
        "print(guard.torchvision())",
        path,
    )
    assert (done.stdout, done.returncode) == ("loads\n", 0), done.stderr


def test_another_error_is_not_hidden(tmp_path: Path) -> None:
    path = package(tmp_path, "torchvision", __init__="raise RuntimeError('something else')")
    done = python("from conformance import guard\nguard.install()", path)
    assert "something else" in done.stderr


def test_absent_packages_stay_absent() -> None:
    code = """
import importlib.util, sys
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name.startswith("torch") else real(name, *rest)
from conformance import guard
guard.install()
print(guard.torchvision(), guard.torchaudio(), "torchvision" in sys.modules)
"""
    done = python(code)
    assert (done.stdout, done.returncode) == ("absent absent False\n", 0), done.stderr


@pytest.mark.parametrize(
    ("error", "then"),
    [
        (
            "OSError('libtorch_cuda.so: cannot open')",
            "from transformers.utils import is_torchaudio_available; assert not is_torchaudio_available()\n"
            "import transformers.audio_utils\n",
        ),
        ("RuntimeError('torchaudio::x')", ""),
    ],
)
def test_a_torchaudio_that_does_not_load_is_hidden(tmp_path: Path, error: str, then: str) -> None:
    path = package(tmp_path, "torchaudio", __init__=f"from torchaudio import inner\nraise {error}", inner="")
    done = python(
        "from conformance import guard\nguard.install(); guard.install()\n"
        "import importlib.util; assert importlib.util.find_spec('torchaudio') is None\n"
        "import sys; assert 'torchaudio.inner' not in sys.modules\n"
        f"{then}print(guard.torchaudio())",
        path,
    )
    assert (done.stdout, done.returncode) == ("hidden\n", 0), done.stderr


def test_a_torchaudio_that_loads_is_left_alone(tmp_path: Path) -> None:
    path = package(tmp_path, "torchaudio", __init__="marker = 1")
    done = python(
        "from conformance import guard\nguard.install()\n"
        "import torchaudio; print(torchaudio.marker, guard.torchaudio())",
        path,
    )
    assert (done.stdout, done.returncode) == ("1 loads\n", 0), done.stderr


@pytest.mark.parametrize(("given", "expected"), [(None, "AVX2,STRICT"), ("COMPATIBLE", "COMPATIBLE")])
def test_rows_of_a_product_have_bits_of_their_own_unless_somebody_chose(
    monkeypatch: pytest.MonkeyPatch, given: str | None, expected: str
) -> None:
    if given is None:
        monkeypatch.delenv("MKL_CBWR", raising=False)
    else:
        monkeypatch.setenv("MKL_CBWR", given)
    code = "from conformance import environment, guard; guard.install(); print(environment.variables()['MKL_CBWR'])"
    assert python(code).stdout.strip() == expected
