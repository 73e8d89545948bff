"""JUnit XML of a run: one test case a case and gate."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

from conformance.results import CaseResult, Results
from conformance.verdicts import Verdict
from reports.labels import PASSED, VERDICTS, limit_text, metric_label, metric_unit
from reports.text import number, one_line, visible


def junit_xml(results: Results) -> str:
    """The document. FAIL is a failure; a case that broke off or could not be judged is an error.

    Only a waived case is ``skipped``, with its reason: nothing unjudged looks like a pass or a skip.
    """
    verdicts = [case.verdict for case in results.cases]
    failures, skipped = verdicts.count(Verdict.FAIL), verdicts.count(Verdict.WAIVED)
    errors = sum(verdict not in (*PASSED, Verdict.FAIL, Verdict.WAIVED) for verdict in verdicts)
    totals = {
        "name": "conformance",
        "tests": str(len(verdicts)),
        "failures": str(failures),
        "errors": str(errors),
        "skipped": str(skipped),
        "time": f"{sum(_seconds(case) for case in results.cases):.3f}",
    }
    root = ET.Element("testsuites", totals)
    suite = ET.SubElement(root, "testsuite", totals)
    if results.run.get("started"):
        suite.set("timestamp", _clean(results.run["started"]))
    for case in results.cases:
        _testcase(suite, case)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _testcase(suite: ET.Element, case: CaseResult) -> None:
    # dots separate packages in every reader of JUnit files
    axes = [case.axes[name] for name in ("model", "pipeline") if name in case.axes]
    item = ET.SubElement(
        suite,
        "testcase",
        classname=_clean(".".join(["conformance", *(axis.replace(".", "_") for axis in axes)])),
        name=_clean(f"{case.id} [{case.gate}]"),
        time=f"{_seconds(case):.3f}",
    )
    properties = ET.SubElement(item, "properties")
    for name, value in {"verdict": str(case.verdict), "gate": case.gate, **case.axes}.items():
        ET.SubElement(properties, "property", name=_clean(name), value=_clean(value))
    if case.verdict in PASSED:
        return
    message = _clean(f"{VERDICTS[case.verdict].short}: {case.reason or VERDICTS[case.verdict].sentence}")
    if case.verdict is Verdict.WAIVED:
        ET.SubElement(item, "skipped", message=message)
        return
    kind = "failure" if case.verdict is Verdict.FAIL else "error"
    ET.SubElement(item, kind, type=str(case.verdict), message=message).text = _details(case)


def _details(case: CaseResult) -> str:
    lines = [visible(case.reason)]
    for name, metric in case.metrics.items():
        if metric.worst is None:
            lines.append(f"{metric_label(name)}: not measured. {one_line(metric.note)}")
            continue
        state = {True: "within", False: "outside", None: "not judged"}[metric.ok]
        limit = f", limit {limit_text(name, metric.limit)}" if metric.limit is not None else ""
        worst = f"{number(metric.worst)} {metric_unit(name)}".rstrip()
        lines.append(f"{metric_label(name)}: worst {worst}{limit}: {state}")
    if case.divergence:
        lines.append(f"first difference: {one_line(case.divergence.tap)}")
    if case.command:
        lines.append(f"again: {one_line(case.command)}")
    return _clean("\n".join(lines))


def _seconds(case: CaseResult) -> float:
    return sum(case.seconds.values())


def _clean(text: Any) -> str:
    """Visible text without the two code points beyond control characters that XML 1.0 does not have."""
    return visible(text).replace("\ufffe", "\\ufffe").replace("\uffff", "\\uffff")
