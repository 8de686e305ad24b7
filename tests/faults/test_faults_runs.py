"""Odd run directories by the thousand: no reader ends but by an error with a name."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from support import ROOT

# What a page, a network and a few files take; a file that is read whole would take more.
GROWTH_MB = 100.0
# The most that one run directory takes, with a learner that is made for it.
CPU_S = 2.0


def fuzzer(seed: int, count: int, timeout_s: float) -> dict[str, Any]:
    """What the fuzzer reports."""
    tests = ROOT / "tests"
    done = subprocess.run(
        [sys.executable, str(tests / "chaos" / "fuzz_runs.py"), str(seed), str(count)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env=os.environ | {"PYTHONPATH": str(tests)},
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def assert_only_named_ends(report: dict[str, Any]) -> None:
    assert report["failures"] == []
    for reader in ("reports", "evaluates", "resumes"):
        ends = {end: n for end, n in report["outcomes"].items() if end.startswith(reader)}
        assert sum(ends.values()) == report["count"]
        assert len(ends) >= 2 and ends[f"{reader} taken"] > 0
    assert report["slowest_s"] < CPU_S
    assert report["growth_mb"] < GROWTH_MB


@pytest.mark.fault(64)
def test_two_hundred_odd_run_directories_are_refused_by_name_or_sound(chaos_seed: int) -> None:
    assert_only_named_ends(fuzzer(chaos_seed, 200, timeout_s=120.0))


@pytest.mark.full
@pytest.mark.timeout(900)  # it takes four minutes, where it has a core to itself
@pytest.mark.fault(64)
def test_twenty_thousand_odd_run_directories_are_refused_by_name_or_sound(chaos_seed: int) -> None:
    sys.stdout.write(f"seed {chaos_seed}\n")
    assert_only_named_ends(fuzzer(chaos_seed, 20_000, timeout_s=880.0))
