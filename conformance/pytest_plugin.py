"""pytest plugin: every case is an item.

``pytest --conformance -k "ltx-2.3 and cfg"`` works in any repository where the package is installed; without
``--conformance`` the plugin only adds its options. The report is written when the session ends.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from conformance.case import KERNELS, QUANTIZATIONS

if TYPE_CHECKING:
    from conformance.case import Case
    from conformance.job import Job
    from conformance.results import CaseResult
    from conformance.runner import Options


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("conformance", "numerical conformance of diffusion engines")
    group.addoption("--conformance", action="store_true", help="collect the conformance cases as tests")
    group.addoption("--conformance-suite", default="default", help="suite to collect (default: default)")
    group.addoption("--conformance-out", default="out", help="folder of report and artifacts (default: out)")
    group.addoption("--conformance-engine", metavar="MODULE:FACTORY", help="generator to test (default: the engine)")
    group.addoption("--conformance-reference", default="live", help="as --reference of conformance run")
    group.addoption("--conformance-checkpoint", metavar="WHICH", help="as --checkpoint of conformance run")
    group.addoption("--conformance-thresholds", metavar="PATH", help="thresholds file or folder (default: shipped)")
    group.addoption("--conformance-set", action="append", default=[], metavar="FIELD=VALUE", help="as --set")
    group.addoption("--conformance-config", type=Path, metavar="FILE", help="as --config")
    group.addoption("--conformance-quantization", choices=QUANTIZATIONS, help="as --quantization")
    group.addoption("--conformance-kernels", choices=KERNELS, help="as --kernels")
    group.addoption("--conformance-image", metavar="FILE", help="as --image; collects the cases that take one")
    group.addoption("--conformance-timeout", type=float, default=300.0, help="seconds a case may take (default 300)")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "conformance: a case of the conformance matrix")
    if config.getoption("--conformance"):
        if config.getoption("numprocesses", None):
            raise pytest.UsageError("--conformance isolates its cases itself and writes one report: use it without -n")
        config.pluginmanager.register(_Session(config), "conformance-session")


class CaseFailure(Exception):
    """A case that did not pass; its text is all that pytest shows."""


class _Session:
    """Collects the cases, runs each when its turn comes, reports at the end."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.started = time.time()
        self.results: dict[str, CaseResult] = {}
        self._options: Options | None = None
        self._jobs: dict[str, Job] = {}
        self._out = ExitStack()

    def options(self) -> Options:
        from conformance.job import ENGINE
        from conformance.runner import Options, open_out

        if self._options is None:
            get = self.config.getoption
            checkpoint, thresholds = get("--conformance-checkpoint"), get("--conformance-thresholds")
            options = Options(
                out=Path(get("--conformance-out")),
                engine=get("--conformance-engine") or ENGINE,
                reference=get("--conformance-reference"),
                checkpoint=Path(checkpoint) if checkpoint else None,
                thresholds=Path(thresholds) if thresholds else None,
                timeout=get("--conformance-timeout"),
            )
            self._out.enter_context(open_out(options.out, resume=False))
            self._options = options
        return self._options

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, session: pytest.Session, items: list[pytest.Item]) -> None:
        from conformance.errors import ConformanceError
        from conformance.matrix import all_cases, select
        from conformance.overrides import depart

        get = self.config.getoption
        try:
            picked = select(all_cases(), (), get("--conformance-suite"))
            if get("--conformance-image"):  # pytest picks later, so the others are left out here
                picked = [case for case in picked if case.request.image is not None]
            cases = depart(
                picked,
                settings=get("--conformance-set"),
                config=get("--conformance-config"),
                quantization=get("--conformance-quantization"),
                kernels=get("--conformance-kernels"),
                image=get("--conformance-image"),
                option="--conformance-",
            )
        except ConformanceError as error:
            raise pytest.UsageError(str(error)) from None
        made = [
            CaseItem.from_parent(session, name=case.id, nodeid=f"conformance::{case.id}", case=case, runs=self)
            for case in cases
        ]
        # a report of our own, so that pytest counts them as collected
        report = pytest.CollectReport(nodeid="conformance", outcome="passed", longrepr=None, result=list(made))
        session.ihook.pytest_collectreport(report=report)
        items.extend(made)

    def run(self, case: Case, session: pytest.Session) -> CaseResult:
        from conformance.runner import make_jobs, run_jobs

        options = self.options()
        if not self._jobs:  # checkpoints are prepared once, for all cases
            cases = [item.case for item in session.items if isinstance(item, CaseItem)]
            self._jobs = {job.case.id: job for job in make_jobs(cases, options)}
        result = next(iter(run_jobs([self._jobs[case.id]], options)))
        self.results[case.id] = result
        return result

    def pytest_unconfigure(self) -> None:
        self._out.close()

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if not self.results:
            return
        from conformance.runner import collect
        from reports.render import write_report

        ran = [item.case for item in session.items if isinstance(item, CaseItem) and item.case.id in self.results]
        command = "pytest " + " ".join(self.config.invocation_params.args)
        results = collect(ran, list(self.results.values()), self.options(), self.started, command)
        write_report(results, self.options().out)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if self.results:
            terminalreporter.write_line(f"conformance report: {(self.options().out / 'index.html').resolve()}")


class CaseItem(pytest.Item):
    """One case. Passes on PASS_EXACT, PASS and WAIVED; everything else fails with the verdict and its reason."""

    def __init__(self, *, case: Case, runs: _Session, **more: Any) -> None:
        super().__init__(**more)
        self.case, self._runs = case, runs
        self.add_marker("conformance")

    def runtest(self) -> None:
        from conformance.errors import ConformanceError
        from conformance.verdicts import EXIT_OK, exit_code

        try:
            result = self._runs.run(self.case, self.session)
        except ConformanceError as error:
            raise CaseFailure(str(error)) from None
        self.user_properties.append(("verdict", str(result.verdict)))
        if exit_code([result.verdict]) != EXIT_OK:
            raise CaseFailure("\n".join(_explain(result)))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        return str(excinfo.value) if isinstance(excinfo.value, CaseFailure) else super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, None, f"case {self.name}"


def _explain(result: CaseResult) -> Iterator[str]:
    yield f"{result.verdict}: {result.reason}"
    if result.divergence:
        yield f"first tap that differs: {result.divergence.tap} (relative L2 {result.divergence.rel_l2})"
    yield f"re-run: {result.command}"
