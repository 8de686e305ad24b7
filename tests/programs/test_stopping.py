"""How programs begin and end, whatever the system does: early signals, full outputs, log lines."""

import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from full import in_full

from impala_redis.workers import stopping
from support import BIN, Programs, eventually

linux = pytest.mark.skipif(sys.platform != "linux", reason="/dev/full and namespaces are Linux's")


# Log lines.


LINE = """
import logging
from impala_redis.workers import stopping
stopping.set_up_logging("info", "100%s")
logging.getLogger("impala").info("hello")
"""


@pytest.mark.parametrize(("zone", "offset"), [("UTC", "+00:00"), ("Asia/Kolkata", "+05:30")])
def test_a_log_line_begins_with_date_time_and_zone(zone: str, offset: str) -> None:
    # when a program on a machine in that zone logs
    done = subprocess.run(
        [sys.executable, "-c", LINE],
        env=os.environ | {"TZ": zone},
        capture_output=True,
        text=True,
        check=True,
    )

    # then
    stamp, _, rest = done.stderr.partition(" ")
    assert rest == "100%s: hello\n"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d" + re.escape(offset), stamp)
    assert abs(datetime.fromisoformat(stamp) - datetime.now(UTC)) < timedelta(seconds=60)


def test_what_programs_say_of_strangers_does_nothing_to_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    # given a text of somebody else's, as the name of a lease's holder or an environment's error
    text = "held by \x1b[2Jhost:1\x07"

    # when it stands in a log line, beside frames of several lines, and in the last sentence
    record = logging.makeLogRecord({"msg": "%s\n  File x", "args": (text,)})
    line = stopping._DatedFormatter("%(message)s").format(record)
    stopping.say_error(text)

    # then
    assert line == "held by ?[2Jhost:1?\n  File x"
    assert capsys.readouterr().err == "error: held by ?[2Jhost:1?\n"


# Ends.


ENDS = """
import threading, time
from impala_redis.workers import stopping
stopping.END_WITHIN_S = 0.2
with stopping.ending_in_time():
    threading.Thread(target=time.sleep, args=(60.0,)).start()
time.sleep(0.5)
print("still here", flush=True)
"""


def test_a_program_ends_in_time_and_not_whoever_runs_it() -> None:
    # given one that leaves a thread, in a process that goes on with other things
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", ENDS], capture_output=True, text=True, timeout=30.0, check=True
    )

    # then they are done, and the process does not wait for the thread
    assert done.stdout == "still here\n"
    assert time.monotonic() - began < 20.0


# Outputs that take nothing.


@linux
@pytest.mark.processes
@pytest.mark.parametrize("unbuffered", ["", *in_full("1")])
@pytest.mark.parametrize(
    "command",
    ["impala-status --help", "impala-report {run} --help", "impala-train -h", "impala-actor -h"],
)
def test_a_full_standard_output_gets_a_sentence_and_a_code(
    programs: Programs, command: str, unbuffered: str
) -> None:
    # when
    program = programs.shell(f"{command} > /dev/full", PYTHONUNBUFFERED=unbuffered)

    # then
    assert program.code() == 10
    assert program.output == "error: standard output cannot be written (No space left on device)\n"


@linux
@pytest.mark.processes
def test_figures_that_cannot_be_printed_get_a_sentence_and_a_code(
    programs: Programs, redis_url: str, run_name: str
) -> None:
    # given a run that is open
    learner = programs.start(
        *("impala-learner", "--preset", "cartpole", "--run", run_name, "--run-dir", "run"),
        *("--redis-url", redis_url),
    )
    learner.says("ready")

    # when
    line = f"impala-status --run {run_name} --redis-url {redis_url} > /dev/full"
    status = programs.shell(line)

    # then
    assert status.code() == 10
    assert status.output == "error: standard output cannot be written (No space left on device)\n"


@linux
@pytest.mark.processes
def test_a_full_standard_error_leaves_the_exit_code(programs: Programs) -> None:
    command = "impala-status --run x --redis-url redis://127.0.0.1:1/0"
    program = programs.shell(f"{command} 2> /dev/full")
    assert program.code() == 4
    assert program.output == ""


@pytest.mark.processes
def test_closed_standard_streams_are_as_good_as_none(
    programs: Programs, redis_url: str, run_name: str
) -> None:
    """Connections and files must not get their numbers, to which prints and warnings go."""
    # given what opens connections, makes an environment and prints
    arguments = f"--run {run_name} --redis-url {redis_url}"
    train = f"impala-train --preset cartpole {arguments} --run-dir run --envs-per-actor 2"
    short = "--unroll-length 5 --batch-size 2 --total-frames 100 --stop-at-return none"
    evaluate = f"impala-eval {arguments} --episodes 1"

    # when / then
    program = programs.shell(
        f"bash -c '{train} {short} <&- >&- 2>&- && {evaluate} >&- && "
        f"impala-status {arguments} <&- >&-'"
    )
    assert program.code() == 0, program.output
    assert "Traceback" not in program.output


@pytest.mark.processes
@pytest.mark.parametrize(
    "command", ["impala-train", "impala-learner --preset cartpole", "impala-report run"]
)
def test_a_working_directory_that_is_gone_gets_a_sentence(programs: Programs, command: str) -> None:
    program = programs.shell(f"bash -c 'mkdir gone && cd gone && rmdir ../gone && {command}'")
    assert program.code() == 10
    assert program.output.endswith(
        "error: the working directory has been deleted; change to one that exists\n"
    )
    assert "Traceback" not in program.output


# Process 1.


def handles_sigterm(pid: int) -> bool:
    """Whether the process has a handler for SIGTERM, by the kernel's word."""
    found = re.search(r"SigCgt:\s+(\w+)", Path(f"/proc/{pid}/status").read_text())
    return found is not None and bool(int(found[1], 16) & 1 << (signal.SIGTERM - 1))


def in_a_namespace(*command: str) -> subprocess.Popen[bytes]:
    """Starts a command as process 1 of a namespace of its own; skips where that is not allowed."""
    unshare = shutil.which("unshare")
    words = [str(unshare), "--fork", "--pid", "--mount-proc", "--kill-child"]
    if unshare is None or subprocess.run([*words, "true"], capture_output=True).returncode:
        pytest.skip("no namespaces for this user")
    return subprocess.Popen([*words, *command], stdout=subprocess.DEVNULL)


@linux
@pytest.mark.processes
@pytest.mark.parametrize("program", ["impala-actor", "impala-learner"])
def test_process_1_ends_on_a_signal_before_its_imports_are_done(program: str) -> None:
    # given a program that begins as a container's process 1
    options = ["--run", "x", "--redis-url", "redis://127.0.0.1:1/0", "--wait-redis-s", "60"]
    options += ["--env", "CartPole-v1"] if program == "impala-learner" else []
    with in_a_namespace(str(BIN / program), *options) as outer:
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
        pid = int(eventually(children.read_text))

        # when it is asked to stop as soon as the kernel would let it know
        eventually(lambda: handles_sigterm(pid))
        loaded = Path(f"/proc/{pid}/maps").read_text()
        os.kill(pid, signal.SIGTERM)

        # then it ends, though it has hardly begun
        assert outer.wait(10) == 128 + signal.SIGTERM
        assert "numpy" not in loaded


def test_another_process_keeps_the_systems_handler() -> None:
    code = "import signal, impala_redis.workers; print(int(signal.getsignal(signal.SIGTERM)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{int(signal.SIG_DFL)}\n"
