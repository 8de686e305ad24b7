"""What impala-status reads is hostile: it shows it in bounded time and memory, or says why not."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from support import ROOT

pytestmark = pytest.mark.fault(62)

CPU_S, GROWTH_MB = 0.25, 30


def fuzzed(seed: int, count: int, timeout_s: float) -> dict[str, Any]:
    """What the fuzzer of readings reports."""
    tests = ROOT / "tests"
    done = subprocess.run(
        [sys.executable, str(tests / "chaos" / "fuzz_readings.py"), str(seed), str(count)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env=os.environ | {"PYTHONPATH": str(tests)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def assert_shown(report: dict[str, Any]) -> None:
    assert report["failures"] == []
    assert set(report["outcomes"]) == {"shown", "missing"}
    assert sum(report["outcomes"].values()) == report["count"]
    assert report["slowest_s"] < CPU_S
    assert report["growth_mb"] < GROWTH_MB


def test_a_thousand_hostile_runs_are_shown_or_said_to_be_missing(chaos_seed: int) -> None:
    assert_shown(fuzzed(chaos_seed, 1000, 60.0))


@pytest.mark.full
@pytest.mark.timeout(900)
def test_a_million_hostile_texts_are_shown_or_said_to_be_missing(chaos_seed: int) -> None:
    sys.stdout.write(f"seed {chaos_seed}\n")
    report = fuzzed(chaos_seed, 20_000, 880.0)
    assert report["texts"] > 1_000_000
    assert_shown(report)
