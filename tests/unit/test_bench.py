"""Benches are commands, and what a layout hands to collectives is counted exactly."""

from __future__ import annotations

import importlib

import pytest
import torch

from conformance import cli, ranks
from conformance.commands.bench import BENCHES
from engine.parallel import bench
from engine.parallel.bench import Cost

TOKENS, WIDTH, HIDDEN, FLOAT = 4 * 12 * 16, 512, 2048, 4


@pytest.mark.parametrize("name", BENCHES)
def test_every_bench_has_a_main(name: str) -> None:
    assert callable(importlib.import_module(BENCHES[name]).main)


def test_arguments_are_the_bench_s_own(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["bench", "parallel", "--help"])
    assert "usage: conformance bench parallel" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        cli.main(["bench", "none"])


@pytest.mark.parametrize(("gather", "size"), [(False, TOKENS * WIDTH), (True, TOKENS * HIDDEN // 2)])
def test_bytes_of_a_feed_forward(gather: bool, size: int) -> None:
    costs = ranks.run(2, bench.feed_forward_cost, gather, 2, torch.float32, "cpu", timeout=60.0)
    assert [cost.bytes for cost in costs] == [size * FLOAT] * 2
    assert all(cost.seconds > 0 for cost in costs)


def test_one_device_hands_nothing_over_and_cfg_its_x0() -> None:
    (one,) = ranks.run(1, bench.step_cost, "single", torch.float32, "cpu", timeout=100.0)
    assert one.bytes == 0
    sizes = bench.config()
    x0 = (TOKENS * sizes.in_channels + 64 * sizes.audio_in_channels) * FLOAT
    assert [each.bytes for each in ranks.run(2, bench.step_cost, "cfg2", torch.float32, "cpu", timeout=100.0)] == [
        x0
    ] * 2


def test_a_line_is_the_median_of_the_ratios_of_rounds() -> None:
    rounds = [{"a": Cost(base, 0.0), "b": Cost(base * ratio, 2.0**20)} for base, ratio in ((1, 3), (2, 1), (4, 2))]
    assert bench.against("b", rounds, "a").split() == [
        "b",
        "3000.0",
        "ms",
        "2.00",
        "(1.00",
        "to",
        "3.00)",
        "1.00",
        "MiB",
    ]
    assert bench.mean([Cost(1.0, 4.0), Cost(3.0, 2.0)]) == Cost(3.0, 3.0)
