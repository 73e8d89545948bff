"""The ``conformance`` command. Nothing heavy is imported here: ``--help`` answers at once."""

from __future__ import annotations

import argparse
import importlib
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from conformance.case import KERNELS, QUANTIZATIONS
from conformance.commands.bench import BENCHES
from conformance.errors import ConformanceError
from conformance.verdicts import EXIT_INFRA, EXIT_USAGE

EPILOG = """exit codes: 0 every case passed; 1 a numeric failure; 2 wrong usage; 3 infrastructure (crash, time
limit, out of memory); 4 something could not be judged. The worst wins in the order 2, 3, 1, 4."""


def _positive(kind: type) -> type:
    def parse(text: str) -> object:
        value = kind(text)
        if value <= 0:
            raise ValueError
        return value

    parse.__name__ = f"positive {kind.__name__}"
    return parse  # type: ignore[return-value]


def _run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--engine", metavar="MODULE:FACTORY", default="engine.generator:build", help="generator to test"
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="WHICH",
        help="diffusers folder, official .safetensors file or hub id org/name (default: tiny, built here)",
    )
    parser.add_argument(
        "--text-encoder", type=Path, metavar="FOLDER", help="Gemma3 and its tokenizer, for an official file"
    )
    parser.add_argument(
        "--upsampler", type=Path, metavar="PATH", help="latent upsampler, file or folder, for an official file"
    )
    parser.add_argument("--lora", type=Path, metavar="FILE", help="distilled LoRA, for an official file")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=_positive(int), default=1, metavar="N", help="CPU threads a case (default 1)")
    parser.add_argument(
        "--jobs", type=_positive(int), metavar="N", help="cases at once (default: what the cores carry)"
    )
    parser.add_argument(
        "--timeout", type=_positive(float), default=300.0, metavar="S", help="seconds a case may take (default 300)"
    )
    parser.add_argument("--store", type=Path, metavar="DIR", help="ground-truth store (default: the shipped one)")


def _departures(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("departures from the cases (docs/overrides.md)")
    group.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="a rounding decision of the engine (docs/numerics.md), such as attention=math; repeatable",
    )
    group.add_argument("--config", type=Path, metavar="FILE", help="JSON with numerics, quantization and kernels")
    group.add_argument(
        "--quantization", choices=QUANTIZATIONS, help="how the DiT's weights are stored (checkpoint: what it says)"
    )
    group.add_argument("--kernels", choices=KERNELS, help="fused kernels where they can run")
    group.add_argument("--image", metavar="FILE", help="first frame of the image-conditioned cases: PNG, JPEG or WebP")


def _ledger(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ledger",
        metavar="FILE",
        help="gap ledger, or 'none' (default: the shipped one, for the shipped engine on the project's checkpoints)",
    )


def _limits(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--thresholds", type=Path, metavar="PATH", help="thresholds file or folder (default: shipped)")
    parser.add_argument(
        "--clip", metavar="MODEL:WEIGHTS", help="measure CLIP: ViT-B-32:/path/to.safetensors or ViT-B-32:HUB_TAG"
    )


def _limits_commands(command: Callable[[str, str], argparse.ArgumentParser], cases_help: str, suite_help: str) -> None:
    calibrate = command("calibrate", "Measure limits: noise floor, defects, and what the limits catch.")
    calibrate.add_argument("cases", nargs="*", metavar="CASE", help=cases_help)
    calibrate.add_argument("--suite", default="default", help=suite_help)
    calibrate.add_argument("--owner", required=True, help="who answers for these limits")
    calibrate.add_argument(
        "--thresholds", type=Path, metavar="FILE", help="file to write; its other cases stay (default: the shipped one)"
    )
    calibrate.add_argument(
        "--samples", type=_positive(int), default=5, metavar="N", help="runs of each side, at least (default: 5)"
    )
    power = command("power", "Defects by cases: caught, missed or waived, and by which metric.")
    power.add_argument("cases", nargs="*", metavar="CASE", help=f"{cases_help} (default: every case with limits)")
    power.add_argument("--thresholds", type=Path, metavar="PATH", help="thresholds file or folder (default: shipped)")
    power.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables below the marker line of a file")
    power.add_argument("--measure", action="store_true", help="run the battery now instead of reading the evidence")
    for parser in (calibrate, power):
        parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
        parser.add_argument(
            "--jobs", type=_positive(int), metavar="N", help="cases at once (default: what the cores carry)"
        )


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="conformance", description="Numerical-accuracy conformance for diffusion inference engines.", epilog=EPILOG
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text, epilog=EPILOG)
        made.add_argument("--json", metavar="PATH", help="also write JSON; - is standard output, then nothing else is")
        return made

    cases_help = "case ids, leading parts of ids, or globs"
    suite_help = "cases to run, or to pick from by name (default: default)"

    listing = command("list", "List the cases of the matrix.")
    listing.add_argument("cases", nargs="*", metavar="CASE", help=cases_help)
    listing.add_argument("--suite", default="full", help=suite_help.replace("default: default", "default: full"))

    run = command("run", "Run cases: engine against reference, judged and reported.")
    run.add_argument("cases", nargs="*", metavar="CASE", help=cases_help)
    run.add_argument("--suite", default="default", help=suite_help)
    run.add_argument("--out", type=Path, default=Path("out"), metavar="DIR", help="report and artifacts (default: out)")
    run.add_argument(
        "--reference",
        action="append",
        default=[],
        metavar="WHICH",
        help="live (default: what the case's numerics name; on several ranks the engine on one device), diffusers or"
        " official, stored (its stored output), self (the engine's accepted output), single (the engine on one device)"
        " or MODULE:FACTORY; repeatable, one a gate",
    )
    _run_options(run)
    _limits(run)
    _ledger(run)
    _departures(run)
    run.add_argument(
        "--oracle", action="store_true", help="where the sides differ, say who is closer to a float64 truth"
    )
    run.add_argument("--depth", choices=("block", "step"), default="block", help="how deep taps reach (default: block)")
    run.add_argument("--shard", metavar="i/n", help="only every n-th case from the i-th")
    run.add_argument(
        "--cluster", metavar="ADDRESS", help="run the cases on a Ray cluster: HOST:PORT of its head, or local"
    )
    run.add_argument("--resume", action="store_true", help="keep the finished results in --out")
    run.add_argument("--junit", type=Path, metavar="PATH", help="also write the JUnit XML here")

    compare = command("compare", "Compare images, folders of frames, videos, sound or saved samples.")
    compare.add_argument("a", type=Path, metavar="A", help="candidate: image, folder, video, sound, or a case's folder")
    compare.add_argument("b", type=Path, metavar="B", help="reference")
    compare.add_argument("--common", action="store_true", help="judge the frames both have, and say what is missing")
    compare.add_argument(
        "--out", type=Path, default=Path("out-compare"), metavar="DIR", help="report (default: out-compare)"
    )
    compare.add_argument(
        "--limit", action="append", default=[], metavar="METRIC=VALUE", help="such as ssim=0.95; repeatable"
    )
    compare.add_argument("--case", metavar="ID", help="take the limits of this case from the thresholds")
    compare.add_argument(
        "--exclude", action="append", default=[], metavar="FRAME", help="a frame not to judge; repeatable"
    )
    _limits(compare)

    report = command("report", "Render saved results; several are merged. Nothing is run.")
    report.add_argument("results", nargs="+", type=Path, metavar="RESULTS", help="results.json files or their folders")
    report.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the report")
    report.add_argument("--thresholds", type=Path, metavar="PATH", help="judge again by this thresholds file or folder")
    report.add_argument("--junit", type=Path, metavar="PATH", help="also write the JUnit XML here")

    _limits_commands(command, cases_help, suite_help)

    gt = command("gt", "Ground truth: build, verify, compare or accept references.")
    actions = gt.add_subparsers(dest="action", required=True, metavar="ACTION")
    build = actions.add_parser("build", help="generate references and store them", epilog=EPILOG)
    build.add_argument("cases", nargs="*", metavar="CASE", help=cases_help)
    build.add_argument("--suite", default="default", help=suite_help)
    build.add_argument(
        "--kind",
        choices=("diffusers", "official", "self"),
        default="diffusers",
        help="whose output (default: diffusers)",
    )
    build.add_argument("--reason", required=True, help="why these are stored: goes into the manifests")
    _run_options(build)
    diff = actions.add_parser("diff", help="compare stores, references or what runs produced", epilog=EPILOG)
    diff.add_argument("a", type=Path, metavar="A", help="the old one: store, manifest, or a run's folder")
    diff.add_argument("b", type=Path, metavar="B", help="the new one")
    accept = actions.add_parser("accept", help="make a run's output or gap the accepted one", epilog=EPILOG)
    accept.add_argument("run", type=Path, metavar="RUN", help="folder of a run, or its results.json")
    accept.add_argument("cases", nargs="+", metavar="CASE", help="case ids of the run, leading parts of ids, or globs")
    accept.add_argument(
        "--as",
        dest="what",
        choices=("self", "gap"),
        required=True,
        help="self: the reference of the self gate; gap: an entry of the gap ledger",
    )
    accept.add_argument("--reason", required=True, help="why it is right")
    accept.add_argument("--owner", required=True, help="who answers for it")
    accept.add_argument("--expires", required=True, metavar="YYYY-MM-DD", help="the last day it holds")
    apply = actions.add_parser("apply", help="accept what a patch of the report's page names", epilog=EPILOG)
    apply.add_argument("run", type=Path, metavar="RUN", help="folder of the run the patch was made of")
    apply.add_argument("patch", type=Path, metavar="PATCH", help="accept.json, as the page wrote it")
    for each in (accept, apply):
        each.add_argument("--store", type=Path, metavar="DIR", help="ground-truth store (default: the shipped one)")
        each.add_argument("--checkpoint", type=Path, metavar="FOLDER", help="the run's (default: the project's own)")
        each.add_argument("--ledger", type=Path, metavar="FILE", help="gap ledger (default: the device's shipped one)")
    verify = actions.add_parser("verify", help="check every object and manifest of the store", epilog=EPILOG)
    verify.add_argument("--store", type=Path, metavar="DIR", help="ground-truth store (default: the shipped one)")

    audit = command("audit", "Find flags that do nothing, and stored references that rot.")
    audit.add_argument("results", nargs="*", type=Path, metavar="RESULTS", help="results.json files or their folders")
    audit.add_argument("--store", type=Path, metavar="DIR", help="ground-truth store (default: the shipped one)")

    text = "Measure speed, as ratios within one run."
    bench = commands.add_parser("bench", help=text, description=text, epilog=EPILOG)
    bench.add_argument("name", choices=BENCHES, help="what to measure")
    bench.add_argument(
        "arguments", nargs=argparse.REMAINDER, metavar="...", help="its own arguments (--help names them)"
    )

    command("doctor", "Check the environment.")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code. Known errors are one line on standard error.

    An error that nobody foresaw shows its traceback and is EXIT_INFRA: Python's own code 1 would read as a numeric
    failure.
    """
    options = parser().parse_args(arguments)
    try:
        return importlib.import_module(f"conformance.commands.{options.command}").main(options)
    except ConformanceError as error:
        print(f"conformance: error: {error}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        print("conformance: interrupted; finished cases are kept, continue with --resume", file=sys.stderr)
        return EXIT_INFRA
    except BrokenPipeError:
        sys.stderr.close()
        return 141  # what a shell reports for a reader that left
    except OSError as error:
        print(f"conformance: error: {error}", file=sys.stderr)
        return EXIT_INFRA
    except Exception:
        traceback.print_exc()
        return EXIT_INFRA


if __name__ == "__main__":
    sys.exit(main())
