"""A program that starts warm is the one that starts cold: what it finds, and how it ends."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from support import ROOT, Program, Programs, eventually, is_running
from warm.start import WarmParent, WarmProcess

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(sys.platform != "linux", reason="programs start warm on Linux only"),
]

PROBE = ("python", str(ROOT / "tests" / "warm" / "probe.py"))


@pytest.fixture
def programs(tmp_path: Path, warm_parent: WarmParent | None) -> Any:
    """As everywhere; but with --cold there is nothing to compare."""
    if warm_parent is None:
        pytest.skip("--cold")
    started = Programs(tmp_path, warm_parent)
    yield started
    started.end()


def is_warm(program: Program) -> bool:
    return isinstance(program.process, WarmProcess)


def pair(programs: Programs, *command: str, **variables: str) -> tuple[Program, Program]:
    """The same program, started both ways."""
    warm = programs.start(*command, **variables)
    cold = programs.start(*command, cold=True, **variables)
    assert is_warm(warm)
    assert not is_warm(cold)
    return warm, cold


def test_it_finds_the_same_as_it_begins(programs: Programs) -> None:
    # when
    began = time.monotonic()
    variables = {"IMPALA_RUN": "x", "PYTHONPATH": str(programs.folder / "mine")}
    both = pair(programs, *PROBE, "find", **variables)

    # then
    assert [program.code() for program in both] == [0, 0]
    elapsed_s = time.monotonic() - began
    warm, cold = (json.loads(program.output) for program in both)
    for report, program in zip((warm, cold), both, strict=True):
        assert report["found"]["files"].pop("1") == str(program.log)
        assert report["found"]["files"].pop("2") == str(program.log)
        assert 0 <= report["age_s"] <= elapsed_s + 0.02  # its start is counted in 0.01 s
    assert warm["found"] == cold["found"]
    assert warm["pools"] == cold["pools"]


def test_two_of_them_share_no_random_numbers(programs: Programs) -> None:
    both = [programs.start(*PROBE, "find") for _ in range(2)]
    assert [program.code() for program in both] == [0, 0]
    one, other = (json.loads(program.output)["drawn"] for program in both)
    assert not set(one) & set(other)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, -15), (signal.SIGKILL, -9), (signal.SIGINT, -2)]
)
def test_a_signal_ends_it_with_the_same_code(
    programs: Programs, number: signal.Signals, code: int
) -> None:
    for program in pair(programs, *PROBE, "wait"):
        program.says("waiting")
        program.send(number)
        assert program.code() == code
        assert not is_running(program.pid)
        assert ("KeyboardInterrupt" in program.output) == (number == signal.SIGINT)


def test_it_ends_with_its_own_code_and_all_its_words(programs: Programs) -> None:
    for program in pair(programs, *PROBE, "code", "7"):
        assert program.code() == 7
        assert program.output == "not a whole line"


def test_an_error_ends_it_with_the_same_code_and_words(programs: Programs) -> None:
    for program in pair(programs, *PROBE, "raise"):
        assert program.code() == 1
        assert "Traceback" in program.output
        assert program.output.endswith("ValueError: as asked\n")


@pytest.mark.parametrize(
    "command",
    [
        ("impala-train", "--help"),
        ("impala-learner", "--preset", "cartpol"),
        ("impala-actor", "--no-such-option"),
        ("impala-eval", "--checkpoint", "nowhere"),
        ("impala-report", "nowhere"),
        ("impala-status", "--run", "x", "--redis-url", "redis://127.0.0.1:1/0"),
    ],
    ids=lambda command: command[0],
)
def test_every_command_prints_the_same(programs: Programs, command: tuple[str, ...]) -> None:
    warm, cold = pair(programs, *command)
    assert (warm.code(), warm.output) == (cold.code(), cold.output)


def test_what_is_read_before_the_first_line_makes_it_start_cold(programs: Programs) -> None:
    custom = programs.folder / "custom"
    custom.mkdir()
    (custom / "sitecustomize.py").write_text("")
    for variables in ({"OMP_NUM_THREADS": "1"}, {"LANG": "C"}, {"PYTHONPATH": str(custom)}):
        assert not is_warm(programs.start(*PROBE, **variables))
    assert not is_warm(programs.shell("impala-status --help"))


ORPHANED = """
import os, sys
from pathlib import Path
from support import Programs
from warm.start import WarmParent

program = Programs(Path(sys.argv[1]), WarmParent()).start("python", sys.argv[2], "wait")
print(program.pid, flush=True)
os.read(0, 1)
"""


def test_it_ends_when_the_tests_are_killed(tmp_path: Path) -> None:
    # given tests of which a program waits
    with subprocess.Popen(
        [sys.executable, "-c", ORPHANED, str(tmp_path), PROBE[1]],
        env=os.environ | {"PYTHONPATH": str(ROOT / "tests")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as tests:
        assert tests.stdout is not None
        pid = int(tests.stdout.readline())
        assert is_running(pid)

        # when
        tests.kill()

    # then
    eventually(lambda: not is_running(pid), what="the program to end")
