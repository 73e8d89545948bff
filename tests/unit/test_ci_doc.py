"""The workflow of docs/ci.md: its commands parse, its artifacts meet, and its second job runs."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from report_fixture import make_shards

from conformance import cli

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"```(yaml|sh)\n(.*?)```", TEXT, re.S))
JOBS: dict[str, Any] = yaml.safe_load(BLOCKS["yaml"])["jobs"]
SHARDS = JOBS["run"]["strategy"]["matrix"]["shard"]


def _commands() -> list[str]:
    """Every shell line, the shard filled in."""
    lines = [step["run"] for job in JOBS.values() for step in job["steps"] if "run" in step]
    lines += [line.partition("#")[0].strip() for line in BLOCKS["sh"].splitlines()]
    return [line.replace("${{ matrix.shard }}", str(SHARDS[-1])) for line in lines]


def test_every_command_is_one_that_the_command_line_takes() -> None:
    ours = [shlex.split(line)[1:] for line in _commands() if re.match(r"(\.venv/bin/)?conformance ", line)]
    assert len(ours) == 6
    for arguments in ours:
        cli.parser().parse_args(arguments)  # it leaves the interpreter for one that it does not know
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    assert {line.split()[1] for line in _commands() if line.startswith("make ")} <= set(targets)


def test_the_shards_are_whole_and_their_artifacts_are_the_ones_merged() -> None:
    run = next(step["run"] for step in JOBS["run"]["steps"] if "conformance run" in step.get("run", ""))
    assert f"/{len(SHARDS)} " in run
    assert list(range(1, len(SHARDS) + 1)) == SHARDS
    up = next(step for step in JOBS["run"]["steps"] if "upload-artifact" in step.get("uses", ""))
    down = next(step for step in JOBS["report"]["steps"] if "download-artifact" in step.get("uses", ""))
    assert up["with"]["name"].startswith(down["with"]["pattern"].rstrip("*"))
    assert f"--out {up['with']['path']}" in run
    assert up["if"] == JOBS["report"]["if"] == "always()"


def test_the_second_job_runs(tmp_path: Path) -> None:
    down = next(step["with"] for step in JOBS["report"]["steps"] if "download-artifact" in step.get("uses", ""))
    for number, path in enumerate(make_shards(tmp_path / "made", total=len(SHARDS)), start=1):
        (tmp_path / down["path"]).mkdir(exist_ok=True)
        path.parent.rename(tmp_path / down["path"] / f"shard-{number}")
    command = tmp_path / ".venv" / "bin" / "conformance"
    command.parent.mkdir(parents=True)
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m conformance "$@"\n')
    command.chmod(0o755)
    summary = tmp_path / "job.md"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "GITHUB_STEP_SUMMARY": str(summary)}
    codes = []
    for step in JOBS["report"]["steps"]:
        if "run" in step and not step["run"].startswith("make "):
            codes.append(subprocess.run(["bash", "-e", "-c", step["run"]], cwd=tmp_path, env=environment).returncode)
    assert codes == [3, 0]  # the fixture has a case that broke off
    assert summary.read_text(encoding="utf-8").startswith("## Conformance")
    assert (tmp_path / "report" / "index.html").is_file()
