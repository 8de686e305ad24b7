"""The part `tests` of the kit: the project's tests that are skipped where there is no GPU."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from bench.gpu import plan
from bench.gpu.plan import ROOT, Plan

# The reason for which such a test is skipped elsewhere.
REASON = "needs a GPU"
PLUGIN = "bench.gpu.gpu_tests"


class TestsFailed(Exception):
    """At least one test failed, or none was found."""


def pytest_collection_modifyitems(config: Any, items: list[Any]) -> None:
    """Leaves out every other test: pytest loads this file for it."""
    wanted, others = [], []
    for item in items:
        reasons = {mark.kwargs.get("reason") for mark in item.iter_markers("skipif")}
        (wanted if REASON in reasons else others).append(item)
    config.hook.pytest_deselected(items=others)
    items[:] = wanted


def gpu_tests(given: Plan) -> None:
    """Runs them, without plugins that happen to be installed. Raises TestsFailed."""
    files = [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        if REASON in path.read_text(encoding="utf-8")
    ]
    report = Path(given.folder) / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "pytest_timeout", "-p"]
    # What a newer or older library warns of is no failure here.
    command += ["no:cacheprovider", "-p", PLUGIN, "-W", "default"]
    command += ["--junit-xml", str(report)]
    path = os.pathsep.join([str(ROOT / "scripts"), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": path}
    code = subprocess.run([*command, *files], cwd=ROOT, env=environment).returncode
    if not report.exists():
        raise TestsFailed(f"pytest ended with {code} before it had found the tests; see above")
    cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    failed = [case for case in cases if case.find("failure") is not None]
    failed += [case for case in cases if case.find("error") is not None]
    skipped = sum(case.find("skipped") is not None for case in cases)
    names = [f"{case.get('classname')}::{case.get('name')}" for case in failed]
    given.add(
        {
            "passed": len(cases) - len(failed) - skipped,
            "skipped": skipped,
            "failed": len(failed),
            "which": names,
            "seconds": round(sum(float(case.get("time", 0)) for case in cases), 1),
        }
    )
    if code:
        raise TestsFailed(f"pytest ended with {code}: {', '.join(names) or 'no test was run'}")


if __name__ == "__main__":
    plan.run(gpu_tests)
