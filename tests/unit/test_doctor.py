from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from conformance import doctor, environment, guard

ROOT = Path(__file__).parents[2]


def by_name(checks: list[doctor.Check]) -> dict[str, doctor.Check]:
    return {check.name: check for check in checks}


def test_this_machine_can_run() -> None:
    checks = doctor.checks()
    assert [check for check in checks if check.status == "fail"] == []
    assert len(by_name(checks)) == len(checks)
    assert {"python", "torch", "import names", "import torchvision", "CLIP weights", "GPU"} <= by_name(checks).keys()
    lines = doctor.render(checks).splitlines()
    assert len(lines) == len(checks) + 1
    assert lines[-1].endswith("0 fail")


def test_python_version(monkeypatch: pytest.MonkeyPatch) -> None:
    for version, status in (((3, 10, 9), "fail"), ((3, 11, 0), "ok"), ((3, 12, 4), "ok"), ((3, 13, 0), "fail")):
        monkeypatch.setattr(sys, "version_info", version)
        assert doctor.python().status == status


def test_pins(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"python": "3.11.7", "torch": "2.13.0+cpu", "diffusers": "0.41.0", "numpy": "absent", "triton": "absent"}
    monkeypatch.setattr(environment, "versions", lambda: versions)
    pins = ["torch==2.13.0", "diffusers==0.42.1", "numpy==2.4.6", "triton==3.7.1; platform_system == 'Linux'"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: [*pins, "torch==1.0; extra == 'old'"])
    found = by_name(list(doctor.packages()))
    status = {name: check.status for name, check in found.items()}
    assert status == {"torch": "ok", "diffusers": "warn", "numpy": "fail", "triton": "warn"}
    assert "0.41.0; tested with ==0.42.1" in found["diffusers"].message


def test_versions_without_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    def requires(name: str) -> list[str]:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", requires)
    assert by_name(list(doctor.packages()))["pins"].status == "warn"


def test_a_distribution_with_our_import_name(monkeypatch: pytest.MonkeyPatch) -> None:
    owners = {"kernels": ["kernels", doctor.DISTRIBUTION], "engine": [doctor.DISTRIBUTION]}
    monkeypatch.setattr(importlib.metadata, "packages_distributions", lambda: owners)
    (check,) = doctor.import_names()
    assert (check.name, check.status) == ("import kernels", "warn")
    assert "uninstall kernels" in check.message


def test_a_package_that_shadows_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec

    def find_spec(name: str) -> object:
        return SimpleNamespace(origin="/elsewhere/kernels/__init__.py") if name == "kernels" else real(name)

    monkeypatch.setattr(importlib.metadata, "packages_distributions", lambda: {"kernels": ["kernels"]})
    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    (check,) = doctor.import_names()
    assert (check.name, check.status) == ("import kernels", "fail")
    assert "/elsewhere/kernels" in check.message
    assert "uninstall kernels" in check.message


def test_a_real_shadowing_distribution(tmp_path: Path) -> None:
    info = tmp_path / "kernels-0.1.dist-info"
    for folder in (tmp_path / "kernels", info):
        folder.mkdir()
    (tmp_path / "kernels" / "__init__.py").write_text("")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: kernels\nVersion: 0.1\n")
    (info / "top_level.txt").write_text("kernels\n")
    done = subprocess.run(
        [sys.executable, "-c", "from conformance import doctor; print(*doctor.import_names())"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert "import kernels" in done.stdout, done.stderr
    assert "status='fail'" in done.stdout
    assert "uninstall kernels" in done.stdout


def test_torchvision_outcomes(monkeypatch: pytest.MonkeyPatch) -> None:
    for outcome, status in (("loads", "ok"), ("repaired", "ok"), ("absent", "warn")):
        monkeypatch.setattr(guard, "torchvision", lambda outcome=outcome: outcome)
        assert doctor.torchvision().status == status

    def broken() -> str:
        raise OSError("libjpeg.so:\n not found")

    monkeypatch.setattr(guard, "torchvision", broken)
    assert doctor.torchvision() == doctor.Check("import torchvision", "fail", "OSError: libjpeg.so: not found")


def test_clip_weights_are_found_or_not_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    check = doctor.clip_weights()
    assert check.status == "warn"
    assert "not measured" in check.message
    (tmp_path / "hub" / "models--laion--CLIP-ViT-B-32-laion2B-s34B-b79K").mkdir(parents=True)
    assert doctor.clip_weights().status == "ok"


def test_cache_folder_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CONFORMANCE_CACHE", str(tmp_path / "new" / "cache"))
    assert doctor.cache_folder() == doctor.Check("cache folder", "ok", str(tmp_path / "new" / "cache"))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CONFORMANCE_CACHE", str(tmp_path / "file" / "cache"))
    assert doctor.cache_folder().status == "fail"
    assert doctor.disk().message.endswith(str(tmp_path))


def test_free_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    for free, status in ((100 * 2**20, "fail"), (2**30, "warn"), (2**40, "ok")):
        monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path, free=free: SimpleNamespace(free=free))
        assert doctor.disk().status == status


def test_damaged_data_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests" / "a.json").write_text("{")
    (tmp_path / "b.json").write_text("{")
    monkeypatch.setattr("ground_truth.store.SHIPPED", tmp_path)
    monkeypatch.setattr("thresholds.loader.SHIPPED", tmp_path)
    for check, file in ((doctor.stored_references(), "a.json"), (doctor.limits(), "b.json")):
        assert check.status == "fail"
        assert file in check.message
