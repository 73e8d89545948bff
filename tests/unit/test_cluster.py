"""Runs on a Ray cluster: the results of any other run, placed by devices; what a lost worker or node costs."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from conformance import cluster, environment
from conformance.cluster_node import Expected, lacks
from conformance.errors import InputError
from conformance.jsonio import read_json
from conformance.runner import Options, code_digest

PATHS = os.pathsep.join([str(Path(__file__).parents[2]), str(Path(__file__).parent), *sys.path])
CFG, UNGUIDED = "ltx-2.3/one-stage-t2v/cfg@single+diffusers", "ltx-2.3/one-stage-t2v/unguided@single+diffusers"
WIDE = "ltx-2/one-stage-t2v/all-guidance@cfg4+official-1.0.0-bf16"
_RUN = """
import sys
from conformance import cli, runner
folder = sys.argv.pop(1)
runner.prepare_checkpoints = lambda models, options, on_place: dict.fromkeys(models, (folder, "0"))
sys.exit(cli.main(sys.argv[1:]))
"""


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """``conformance run`` with ``folder`` in the place of every checkpoint."""
    folder.mkdir(exist_ok=True)
    # else Ray takes loopback for the address of the machine
    loopback = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    return subprocess.Popen(
        [sys.executable, "-c", _RUN, str(folder), "run", *arguments, "--reference", "fakes:good"],
        env={**os.environ, **loopback, "PYTHONPATH": PATHS},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(folder: Path, *arguments: str) -> dict[str, dict[str, Any]]:
    """Cases of the finished run by id; its standard output was JSON and nothing else."""
    process = start(folder, *arguments, "--json", "-")
    out, err = process.communicate(timeout=200)
    assert process.returncode != 2, err
    return {case["id"]: case for case in json.loads(out)["cases"]}


def of_ray() -> list[str]:
    """Command lines of the processes that Ray has on this machine."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        line = " ".join(process.info["cmdline"] or ())
        if process.info["status"] != psutil.STATUS_ZOMBIE and (
            "raylet" in line or "gcs_server" in line or "ray::" in line
        ):
            found.append(line)
    return found


def stable(case: dict[str, Any]) -> dict[str, Any]:
    """What does not depend on where and how fast the case ran."""
    sides = {side: {k: v for k, v in ledger.items() if k != "variables"} for side, ledger in case["ledger"].items()}
    return {k: v for k, v in case.items() if k != "seconds"} | {"ledger": sides}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_workers_give_the_results_of_any_run_and_survive_a_lost_one(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    before, folder, out = of_ray(), tmp_path / "checkpoint", tmp_path / "out"
    ids = [f"{UNGUIDED}-fp32", f"{CFG}-fp32", f"{CFG}-bf16", WIDE]  # in the order of the matrix
    local = [*ids, "--cluster", "local", "--jobs", "2", "--out", str(out)]
    cases = run(folder, *local, "--engine", "cluster_fakes:loses_once")
    assert len(list(folder.glob("lost-*"))) == 1, "the worker was killed once"
    assert [cases[each]["verdict"] for each in ids] == ["PASS_EXACT"] * 3 + ["INFRA_ERROR"]
    assert cases[WIDE]["reason"] == "needs 4 CPU on one node of the cluster; the largest has 2"
    pool = run(folder, *ids[:3], "--engine", "cluster_fakes:loses_once", "--out", str(tmp_path / "pool"))
    for each in ids[:3]:
        assert stable(cases[each]) == stable(pool[each])
        assert (out / cases[each]["files"]["log"]).is_file()
        assert (out / cases[each]["frames"][0]["candidate"]).is_file()
    assert not list(out.glob(".cluster-*"))
    kept = (out / cases[ids[0]]["files"]["log"]).stat().st_mtime_ns
    again = run(folder, *local, "--engine", "cluster_fakes:loses_once", "--resume", "--shard", "1/2")
    assert list(again) == [ids[0], ids[2]]
    assert (out / cases[ids[0]]["files"]["log"]).stat().st_mtime_ns == kept
    assert of_ray() == before


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_case_that_loses_every_worker_or_hangs_ends_alone(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    before = of_ray()
    arguments = ["--cluster", "local", "--jobs", "2", "--out", str(tmp_path / "out"), "--timeout", "12"]
    ids = [f"{UNGUIDED}-fp32", f"{CFG}-fp32", f"{CFG}-bf16"]
    hung, good, lost = run(tmp_path / "c", *ids, *arguments, "--engine", "cluster_fakes:loses").values()
    assert [case["verdict"] for case in (hung, good, lost)] == ["INFRA_ERROR", "PASS_EXACT", "INFRA_ERROR"]
    assert "lost in 3 attempts; the last: WorkerCrashedError: The worker died" in lost["reason"]
    assert "time limit: no result within 12 s; last seen at: engine, after latents" in hung["reason"]
    assert of_ray() == before


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster of three nodes of this machine, of one CPU each but for the head, which has none."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    own = {"node_ip_address": "127.0.0.1", "object_store_memory": 80_000_000}
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)  # a short path: sockets are below it
        monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        monkeypatch.setenv("PYTHONPATH", PATHS)
        head = {"num_cpus": 0, "include_dashboard": False, **own}
        made = Cluster(initialize_head=True, head_node_args=head)
        try:
            for _ in range(2):
                made.add_node(num_cpus=1, **own)
            yield made
        finally:
            made.shutdown()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_lost_node_costs_a_retry_of_its_cases(nodes: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["--cluster", nodes.address, "--out", str(out), "--engine", "cluster_fakes:waits"]
    process = start(tmp_path / "c", f"{CFG}-fp32", f"{CFG}-bf16", *arguments)
    limit = time.monotonic() + 120
    while len(list((tmp_path / "c").glob("waits-*"))) < 2 and process.poll() is None:
        assert time.monotonic() < limit
        time.sleep(0.1)
    nodes.remove_node(next(iter(nodes.worker_nodes)), allow_graceful=False)
    (tmp_path / "c" / "go").touch()
    _, err = process.communicate(timeout=150)
    assert process.returncode == 0, err
    assert "attempt" not in err  # places are shown on a terminal alone
    cases = read_json(out / "results.json")["cases"]
    assert [case["verdict"] for case in cases] == ["PASS_EXACT"] * 2
    assert len(list((tmp_path / "c").glob("waits-*"))) == 3, "one of the two was started again"


def test_nothing_of_ray_is_imported_without_the_option() -> None:
    program = "import sys, conformance.cli, conformance.commands.run; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": PATHS}).returncode == 0


def test_without_ray_the_option_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(InputError, match=r"^--cluster: .*; pip install 'diffusion-conformance\[cluster\]'$"),
        cluster.joined("local", Options(out=tmp_path)),
    ):
        pass


@pytest.mark.parametrize("address", ["head", "head:", ":6379", "head:port", "head:70000", "ray://head:10001"])
def test_what_is_no_address_is_refused(address: str, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    with (
        pytest.raises(InputError, match="expected 'local' or HOST:PORT"),
        cluster.joined(address, Options(out=tmp_path)),
    ):
        pass


def test_an_address_where_no_cluster_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.setattr(cluster, "_JOIN", 3.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with (
            pytest.raises(InputError, match="no head of a Ray cluster within 3 s"),
            cluster.joined(address, Options(out=tmp_path)),
        ):
            pass
    with pytest.raises(InputError, match="nobody answers there"), cluster.joined(address, Options(out=tmp_path)):
        pass
    with (
        pytest.raises(InputError, match="--jobs 2: goes with --cluster local"),
        cluster.joined(address, Options(out=tmp_path, jobs=2)),
    ):
        pass


def test_a_node_says_what_it_lacks(tmp_path: Path) -> None:
    (tmp_path / "token").touch()
    versions = tuple(environment.versions().items())
    whole = Expected(token=str(tmp_path / "token"), paths=(str(tmp_path),), code=code_digest(), versions=versions)
    assert lacks(whole) == ""
    for other, words in (
        (replace(whole, token=str(tmp_path / "none")), "is not the folder that this run writes to; expected one that"),
        (replace(whole, paths=("/none",)), "/none does not exist; expected a path that all nodes share"),
        (replace(whole, versions=(*versions[1:], ("torch", "1.0"))), f"torch is {dict(versions)['torch']}"),
        (replace(whole, code="0"), "has other code of the harness"),
    ):
        assert words in lacks(other)
        assert lacks(other).startswith(f"node {socket.gethostname()}: ")
